//! Coders of the pipeline, and the coders that the runner and the SDKs talk in.
//!
//! The wire coder of a coder is that coder with every part that the runner, or one of the pipeline's environments,
//! does not know put into a length prefix. It is a function of the coder alone, the same for the whole pipeline, so
//! both sides of every edge agree, whichever SDKs they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use purlin_model::spec::no_schemas;
use purlin_model::{Coder, WindowCoder};
use purlin_proto::pipeline;
use purlin_proto::urns::coders as urns;

/// Coders that every SDK and runner must know.
const REQUIRED: &[&str] = &[
    urns::WINDOWED_VALUE,
    urns::BYTES,
    urns::GLOBAL_WINDOW,
    urns::INTERVAL_WINDOW,
    urns::KV,
    urns::ITERABLE,
    urns::DOUBLE,
    urns::TIMER,
    urns::LENGTH_PREFIX,
    urns::CUSTOM_WINDOW,
];

/// Coders that the runner knows, and uses where all environments say that they know them. Rows are not among them:
/// in a length prefix they cost no decoding.
const COMMON: &[&str] = &[
    urns::STRING_UTF8,
    urns::BOOL,
    urns::VARINT,
    urns::NULLABLE,
    urns::SHARDED_KEY,
    urns::STATE_BACKED_ITERABLE,
];

/// How the version of the Go SDK begins, which knows no outer context.
const GO_SDK: &str = "beam:version:sdk_base:go";

const GO_CUSTOM: &str = "beam:go:coder:custom:v1";

/// Nesting beyond this is a forged pipeline's.
const MAX_DEPTH: usize = 100;
/// Components, counted with repetition, beyond this are a forged pipeline's (a few shared ids can spell out 2^n).
const MAX_SIZE: usize = 10_000;

/// The wire form of a coder.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// Id among the coders.
    pub id: String,
    /// What the runner knows of it. Inside of length prefixes there is nothing but bytes.
    pub coder: Coder,
    /// Whether it holds no part that only some SDK knows.
    pub plain: bool,
    /// Same number, same coder.
    pub identity: u32,
    size: usize,
}

/// All coders of a pipeline, with those that translation makes.
#[derive(Clone)]
pub(crate) struct Coders {
    protos: HashMap<String, pipeline::Coder>,
    known: HashSet<&'static str>,
    wires: HashMap<String, Result<Wire, String>>,
    windows: HashMap<String, Result<(String, WindowCoder), String>>,
    identities: HashMap<(String, Bytes, Vec<u32>), u32>,
    made: HashMap<(String, Vec<String>), String>,
    /// Whether elements that an SDK puts into a pipeline are in the nested context.
    nested: bool,
}

impl Coders {
    pub(super) fn new<'a>(
        protos: &HashMap<String, pipeline::Coder>,
        environments: impl Iterator<Item = &'a pipeline::Environment>,
    ) -> Self {
        let mut known: HashSet<&'static str> = COMMON.iter().copied().collect();
        let mut nested = false;
        for environment in environments {
            nested |= environment
                .capabilities
                .iter()
                .any(|known| known.starts_with(GO_SDK));
            known.retain(|urn| {
                environment
                    .capabilities
                    .iter()
                    .any(|capability| capability == urn)
            });
        }
        known.extend(REQUIRED);
        Coders {
            protos: protos.clone(),
            known,
            wires: HashMap::new(),
            windows: HashMap::new(),
            identities: HashMap::new(),
            made: HashMap::new(),
            nested,
        }
    }

    /// Whether the SDK knows no outer context: elements that it puts into the pipeline are in the nested one.
    pub(super) fn elements_are_nested(&self) -> bool {
        self.nested
    }

    pub(super) fn get(&self, id: &str) -> Option<&pipeline::Coder> {
        self.protos.get(id)
    }

    /// The components of a pair's coder.
    pub(super) fn kv(&self, id: &str) -> Option<(String, String)> {
        let coder = self.protos.get(id)?;
        match (urn(coder), coder.component_coder_ids.as_slice()) {
            (urns::KV, [key, value]) => Some((key.clone(), value.clone())),
            // A pair may come in a length prefix of the SDK's own making.
            _ => None,
        }
    }

    /// The id of a coder of components; one is made where there is none.
    pub(super) fn make(&mut self, urn: &str, components: &[&str]) -> String {
        let key = (
            urn.to_owned(),
            components.iter().map(|&c| c.to_owned()).collect::<Vec<_>>(),
        );
        if let Some(id) = self.made.get(&key) {
            return id.clone();
        }
        let short = urn.trim_start_matches("beam:coder:").trim_end_matches(":v1");
        let id = self.unused(&match components {
            [] => format!("purlin:{short}"),
            [first, ..] => format!("purlin:{short}:{}", first.trim_start_matches("purlin:")),
        });
        let proto = pipeline::Coder {
            spec: Some(pipeline::FunctionSpec {
                urn: urn.to_owned(),
                payload: Bytes::new(),
            }),
            component_coder_ids: key.1.clone(),
        };
        self.protos.insert(id.clone(), proto);
        self.made.insert(key, id.clone());
        id
    }

    fn unused(&self, prefix: &str) -> String {
        if !self.protos.contains_key(prefix) {
            return prefix.to_owned();
        }
        let mut number = 1;
        loop {
            let id = format!("{prefix}_{number}");
            if !self.protos.contains_key(&id) {
                return id;
            }
            number += 1;
        }
    }

    /// The wire form of a coder; an error says what is wrong with it.
    pub(super) fn wire(&mut self, id: &str) -> Result<Wire, String> {
        self.wire_at(id, 0)
    }

    fn wire_at(&mut self, id: &str, depth: usize) -> Result<Wire, String> {
        if let Some(known) = self.wires.get(id) {
            return known.clone();
        }
        if depth > MAX_DEPTH {
            return Err(format!("coder \"{id}\" is nested too deeply, or contains itself"));
        }
        let wire = self.make_wire(id, depth);
        if depth == 0 || wire.is_ok() {
            self.wires.insert(id.to_owned(), wire.clone());
        }
        wire
    }

    fn make_wire(&mut self, id: &str, depth: usize) -> Result<Wire, String> {
        let proto = self.protos.get(id).ok_or_else(|| match id {
            "" => "a coder id is empty; every PCollection, state and timer needs a coder".to_owned(),
            id => format!("coder \"{id}\" is not among the pipeline's components"),
        })?;
        let proto = proto.clone();
        let coder_urn = urn(&proto).to_owned();
        if coder_urn.is_empty() {
            return Err(format!("coder \"{id}\" has no URN"));
        }
        if coder_urn == urns::LENGTH_PREFIX {
            let identity = self.identity(id, depth)?;
            let plain = match proto.component_coder_ids.as_slice() {
                [inner] => self.wire_at(inner, depth + 1).is_ok_and(|inner| inner.plain),
                _ => return Err(format!("coder \"{id}\" ({coder_urn}) needs one component")),
            };
            return Ok(Wire {
                id: id.to_owned(),
                coder: opaque(),
                plain,
                identity,
                size: 1,
            });
        }
        if !self.known.contains(coder_urn.as_str()) {
            // An identity first, so that a coder that contains itself is found out.
            self.identity(id, depth)?;
            let made = self.make(urns::LENGTH_PREFIX, &[id]);
            let identity = self.identity(&made, depth)?;
            let plain = coder_urn == urns::ROW;
            return Ok(Wire {
                id: made,
                coder: opaque(),
                plain,
                identity,
                size: 1,
            });
        }
        let mut components = Vec::with_capacity(proto.component_coder_ids.len().min(8));
        let mut size = 1;
        for component in &proto.component_coder_ids {
            let component = self.wire_at(component, depth + 1)?;
            size += component.size;
            if size > MAX_SIZE {
                return Err(format!("coder \"{id}\" has more than {MAX_SIZE} parts"));
            }
            components.push(component);
        }
        let payload = payload(&proto);
        let coders = components.iter().map(|c| c.coder.clone()).collect();
        let coder = Coder::from_parts(&coder_urn, &payload, coders, &no_schemas)
            .map_err(|error| format!("coder \"{id}\": {error}"))?;
        let plain = components.iter().all(|c| c.plain);
        let unchanged = components.iter().map(|c| &c.id).eq(&proto.component_coder_ids);
        let wire_id = if unchanged {
            id.to_owned()
        } else {
            let ids: Vec<&str> = components.iter().map(|c| c.id.as_str()).collect();
            self.make(&coder_urn, &ids)
        };
        let identity = self.identity(&wire_id, depth)?;
        Ok(Wire {
            id: wire_id,
            coder,
            plain,
            identity,
            size,
        })
    }

    /// All that is known of a coder, also within length prefixes, with the schemas of rows.
    pub(super) fn whole_coder(&self, id: &str) -> Result<Coder, String> {
        self.whole_coder_at(id, 0)
    }

    fn whole_coder_at(&self, id: &str, depth: usize) -> Result<Coder, String> {
        if depth > MAX_DEPTH {
            return Err(format!("coder \"{id}\" is nested too deeply, or contains itself"));
        }
        let proto = self.protos.get(id);
        let proto = proto.ok_or_else(|| format!("coder \"{id}\" is not among the pipeline's components"))?;
        let mut components = Vec::new();
        for component in &proto.component_coder_ids {
            components.push(self.whole_coder_at(component, depth + 1)?);
        }
        let parse = |payload: &Bytes| {
            crate::schemas::parse_schema(payload)
                .map_err(|error| purlin_model::CoderError::schema(error.to_string()))
        };
        Coder::from_parts(urn(proto), &payload(proto), components, &parse)
            .map_err(|error| format!("coder \"{id}\": {error}"))
    }

    /// A number that equal coders share, however their ids differ.
    fn identity(&mut self, id: &str, depth: usize) -> Result<u32, String> {
        if depth > MAX_DEPTH {
            return Err(format!("coder \"{id}\" is nested too deeply, or contains itself"));
        }
        if let Some(Ok(wire)) = self.wires.get(id)
            && wire.id == id
        {
            return Ok(wire.identity);
        }
        let proto = self.protos.get(id).cloned();
        let proto = proto.ok_or_else(|| format!("coder \"{id}\" is not among the pipeline's components"))?;
        let mut components = Vec::new();
        for component in &proto.component_coder_ids {
            components.push(self.identity(component, depth + 1)?);
            if components.len() > MAX_SIZE {
                return Err(format!("coder \"{id}\" has more than {MAX_SIZE} parts"));
            }
        }
        let next = self.identities.len() as u32;
        Ok(*self
            .identities
            .entry((urn(&proto).to_owned(), payload(&proto), components))
            .or_insert(next))
    }

    /// The wire form of a window coder. A window of a type of the user's is sent with its maximum timestamp before it.
    pub(super) fn window(&mut self, id: &str) -> Result<(String, WindowCoder), String> {
        if let Some(known) = self.windows.get(id) {
            return known.clone();
        }
        let window = self.make_window(id);
        self.windows.insert(id.to_owned(), window.clone());
        window
    }

    fn make_window(&mut self, id: &str) -> Result<(String, WindowCoder), String> {
        let wire = self.wire(id).map_err(|error| format!("window coder: {error}"))?;
        match wire.coder {
            Coder::GlobalWindow | Coder::IntervalWindow | Coder::CustomWindow(_) => {
                Ok((wire.id, WindowCoder::from_coder(wire.coder)))
            }
            coder => {
                let id = self.make(urns::CUSTOM_WINDOW, &[&wire.id]);
                Ok((id, WindowCoder::Custom(Box::new(coder))))
            }
        }
    }

    /// Copies a coder, with its components, to `into`.
    pub(super) fn collect(&self, id: &str, into: &mut HashMap<String, pipeline::Coder>) {
        let mut wanted = vec![id];
        while let Some(id) = wanted.pop() {
            if into.contains_key(id) {
                continue;
            }
            if let Some(proto) = self.protos.get(id) {
                into.insert(id.to_owned(), proto.clone());
                wanted.extend(proto.component_coder_ids.iter().map(String::as_str));
            }
        }
    }

    /// The wire form of a value that an SDK put into the pipeline (by coder `id`, in the outer context, save for the
    /// Go SDK), in the nested context; `None` where its parts cannot be told apart.
    pub(super) fn nest(&mut self, id: &str, outer: &Bytes) -> Option<Bytes> {
        let wire = self.wire(id).ok()?;
        // Go's own coders write their length themselves; what it knows and the runner does not, such as rows, lacks it.
        let prefixed = wire.id == id || !matches!(wire.coder, Coder::LengthPrefix(_));
        if self.nested && (prefixed || self.protos.get(id).is_some_and(|coder| urn(coder) == GO_CUSTOM)) {
            let (mut rest, mut out) = (&outer[..], Vec::with_capacity(outer.len() + 4));
            self.nest_part(id, &mut rest, &mut out)?;
            return rest.is_empty().then(|| out.into());
        }
        let mut out = Vec::with_capacity(outer.len() + 4);
        if wire.id == id {
            let mut rest = &outer[..];
            // Values that tell their own end, the same in both contexts, stay as they are.
            nest_known(&wire.coder, &mut rest, &mut out)?;
            return rest.is_empty().then(|| out.into());
        }
        if matches!(wire.coder, Coder::LengthPrefix(_)) {
            purlin_model::wire::write_bytes(outer, &mut out, true);
            return Some(out.into());
        }
        // A pair: its key is nested already.
        let (key, value) = self.kv(id)?;
        let mut rest = &outer[..];
        self.nest_part(&key, &mut rest, &mut out)?;
        let rest = outer.slice_ref(rest);
        out.extend_from_slice(&self.nest(&value, &rest)?);
        Some(out.into())
    }

    /// Whether [`Coders::nest`] can tell the parts of a value apart, as far as it must.
    fn can_nest(&mut self, id: &str) -> bool {
        let Ok(wire) = self.wire(id) else {
            return false;
        };
        self.nested
            || wire.id == id
            || matches!(wire.coder, Coder::LengthPrefix(_))
            || self
                .kv(id)
                .is_some_and(|(key, value)| self.can_nest_part(&key) && self.can_nest(&value))
    }

    fn can_nest_part(&mut self, id: &str) -> bool {
        let Ok(wire) = self.wire(id) else {
            return false;
        };
        wire.id == id
            || self.protos.get(id).is_some_and(|coder| urn(coder) == urns::ROW)
            || self
                .kv(id)
                .is_some_and(|(key, value)| self.can_nest_part(&key) && self.can_nest_part(&value))
    }

    /// The coder by which a TestStream's elements, of coder `id`, are sent: where only an SDK can take them apart, they are in
    /// a length prefix as a whole. `None` where they are sent as they are.
    pub(super) fn whole(&mut self, id: &str) -> Option<String> {
        let known = self.wire(id).is_ok();
        (known && !self.can_nest(id)).then(|| self.make(urns::LENGTH_PREFIX, &[id]))
    }

    /// An element of a TestStream in the form in which it is sent; `None` where it is not of its coder.
    pub(super) fn scripted(&mut self, id: &str, element: &Bytes) -> Option<Bytes> {
        if self.whole(id).is_none() {
            return self.nest(id, element);
        }
        let mut out = Vec::with_capacity(element.len() + 4);
        purlin_model::wire::write_bytes(element, &mut out, true);
        Some(out.into())
    }

    /// Moves past a value of coder `id` that an SDK wrote in the nested context, and writes its wire form. `None` where
    /// only the SDK knows its end.
    fn nest_part(&mut self, id: &str, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
        let wire = self.wire(id).ok()?;
        let proto = self.protos.get(id)?;
        if wire.id != id && !(self.nested && urn(proto) == GO_CUSTOM) {
            if urn(proto) == urns::ROW {
                let row = take_row(&payload(proto), rest)?;
                purlin_model::wire::write_bytes(row, out, true);
                return Some(());
            }
            if let Some((key, value)) = self.kv(id) {
                self.nest_part(&key, rest, out)?;
                return self.nest_part(&value, rest, out);
            }
            if !self.nested {
                return None;
            }
        }
        out.extend_from_slice(wire.coder.take(rest, true).ok()?);
        Some(())
    }
}

/// Moves past a row, whose coder has this payload; returns its bytes.
fn take_row<'a>(payload: &Bytes, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let schema = crate::schemas::parse_schema(payload).ok()?;
    Coder::Row(Arc::new(schema)).take(rest, true).ok()
}

/// Rewrites a value of the outer context to the nested one.
fn nest_known(coder: &Coder, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    match coder {
        Coder::Bytes | Coder::Utf8 => purlin_model::wire::write_bytes(std::mem::take(rest), out, true),
        Coder::Kv(kv) => {
            out.extend_from_slice(kv.0.take(rest, true).ok()?);
            nest_known(&kv.1, rest, out)?;
        }
        Coder::Nullable(inner) => {
            let mark = purlin_model::wire::read_bool(rest, "the mark of a nullable value").ok()?;
            out.push(u8::from(mark));
            if mark {
                nest_known(inner, rest, out)?;
            }
        }
        other => out.extend_from_slice(other.take(rest, false).ok()?),
    }
    Some(())
}

fn opaque() -> Coder {
    Coder::length_prefix(Coder::Bytes)
}

pub(super) fn urn(coder: &pipeline::Coder) -> &str {
    coder.spec.as_ref().map_or("", |spec| spec.urn.as_str())
}

fn payload(coder: &pipeline::Coder) -> Bytes {
    coder
        .spec
        .as_ref()
        .map(|spec| spec.payload.clone())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use purlin_model::wire::write_bytes;

    use super::*;

    /// A pair of a row and bytes, and a pair of that pair and a row, as an SDK that declares rows or not would have them.
    fn coders(capabilities: &[&str]) -> Coders {
        let field = |name: &str, atomic: pipeline::AtomicType| pipeline::Field {
            name: name.to_owned(),
            r#type: Some(pipeline::FieldType {
                nullable: true,
                type_info: Some(pipeline::field_type::TypeInfo::AtomicType(atomic.into())),
            }),
            ..Default::default()
        };
        let schema = pipeline::Schema {
            fields: vec![
                field("number", pipeline::AtomicType::Int64),
                field("text", pipeline::AtomicType::String),
            ],
            ..Default::default()
        };
        let coder = |urn: &str, payload: Vec<u8>, components: &[&str]| pipeline::Coder {
            spec: Some(pipeline::FunctionSpec {
                urn: urn.to_owned(),
                payload: payload.into(),
            }),
            component_coder_ids: components.iter().map(|&id| id.to_owned()).collect(),
        };
        let protos = [
            ("bytes", coder(urns::BYTES, Vec::new(), &[])),
            ("row", coder(urns::ROW, schema.encode_to_vec(), &[])),
            ("no row", coder(urns::ROW, vec![0xff], &[])),
            ("pair", coder(urns::KV, Vec::new(), &["row", "bytes"])),
            ("both", coder(urns::KV, Vec::new(), &["pair", "row"])),
            ("broken", coder(urns::KV, Vec::new(), &["no row", "bytes"])),
        ];
        let protos = protos
            .into_iter()
            .map(|(id, coder)| (id.to_owned(), coder))
            .collect();
        let environment = pipeline::Environment {
            capabilities: capabilities.iter().map(|&urn| urn.to_owned()).collect(),
            ..Default::default()
        };
        Coders::new(&protos, [environment].iter())
    }

    #[test]
    fn rows_within_pairs_are_told_apart() {
        // Two fields, the second one null; and none null.
        let null = [2, 1, 0b10, 5];
        let full = [2, 0, 5, 2, b'h', b'i'];
        let prefixed = |row: &[u8]| {
            let mut out = Vec::new();
            write_bytes(row, &mut out, true);
            out
        };
        for row in [&null[..], &full] {
            let mut coders = coders(&[urns::ROW]);
            let outer = |parts: &[&[u8]]| Bytes::from(parts.concat());
            // In the outer context the last part runs to the end.
            let nested = coders.nest("pair", &outer(&[row, b"abc"])).unwrap();
            assert_eq!(nested, [&prefixed(row)[..], &[3], b"abc"].concat());
            let nested = coders.nest("both", &outer(&[row, &[3], b"abc", &full])).unwrap();
            assert_eq!(
                nested,
                [&prefixed(row)[..], &[3], b"abc", &prefixed(&full)].concat()
            );
            // A row alone needs no look at it.
            assert_eq!(coders.nest("row", &outer(&[row])).unwrap(), prefixed(row));
            assert_eq!(coders.nest("pair", &outer(&[&row[..2]])), None);
            assert_eq!(coders.nest("broken", &outer(&[row, b"abc"])), None);
            // The Go SDK knows no outer context.
            let mut coders = self::coders(&["beam:version:sdk_base:go:2.70.0"]);
            let nested = coders.nest("both", &outer(&[row, &[3], b"abc", &full])).unwrap();
            assert_eq!(
                nested,
                [&prefixed(row)[..], &[3], b"abc", &prefixed(&full)].concat()
            );
            assert_eq!(coders.nest("pair", &outer(&[row, &[3], b"abcd"])), None);
        }
    }
}

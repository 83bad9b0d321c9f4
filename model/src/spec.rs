//! A coder as the pipeline proto describes it, and the one place where that becomes a [`Coder`].

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::coder::Coder;
use crate::error::{CoderError, MAX_CODER_DEPTH, MAX_CODER_PARTS};
use crate::schema::Schema;
use crate::timer::TimerCoder;
use crate::urns;
use crate::window::WindowCoder;
use crate::windowed::ParamWindowedValueCoder;

/// URN, payload and components of a coder: what `Coder` holds in the pipeline proto, as a tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CoderSpec {
    /// The URN.
    pub urn: Cow<'static, str>,
    /// The payload; empty for most coders.
    pub payload: Bytes,
    /// The coders it is made of.
    pub components: Vec<CoderSpec>,
}

impl CoderSpec {
    /// A coder without payload and components.
    pub const fn atom(urn: &'static str) -> CoderSpec {
        CoderSpec {
            urn: Cow::Borrowed(urn),
            payload: Bytes::new(),
            components: Vec::new(),
        }
    }

    /// A coder without payload.
    pub fn of(urn: &'static str, components: Vec<CoderSpec>) -> CoderSpec {
        CoderSpec {
            urn: Cow::Borrowed(urn),
            payload: Bytes::new(),
            components,
        }
    }
}

/// Reads the payload of `beam:coder:row:v1`, a serialized `Schema`. This crate knows no protobuf, so the caller
/// brings it; the error says what is wrong with the payload (see [`CoderError::schema`]).
pub type ParseSchema<'a> = &'a dyn Fn(&Bytes) -> Result<Schema, CoderError>;

/// The [`ParseSchema`] of callers that know no schemas: every row coder is an error.
///
/// # Errors
/// Always.
pub fn no_schemas(_payload: &Bytes) -> Result<Schema, CoderError> {
    Err(CoderError::schema("row schemas are not read here"))
}

impl Coder {
    /// The coder of a URN, a payload and components. A URN that is not known is [`Coder::Unknown`], not an error.
    ///
    /// # Errors
    /// When the components are of the wrong number, the payload cannot be read, or the coder is too large: coders name
    /// their components by id, so a short pipeline can describe an endless one.
    pub fn from_parts(
        urn: &str,
        payload: &Bytes,
        components: Vec<Coder>,
        parse_schema: ParseSchema<'_>,
    ) -> Result<Coder, CoderError> {
        check_size(urn, &components)?;
        Ok(match urn {
            urns::BYTES => atom(urn, components, Coder::Bytes)?,
            urns::STRING_UTF8 => atom(urn, components, Coder::Utf8)?,
            urns::BOOL => atom(urn, components, Coder::Bool)?,
            urns::VARINT => atom(urn, components, Coder::VarInt)?,
            urns::DOUBLE => atom(urn, components, Coder::Double)?,
            urns::GLOBAL_WINDOW => atom(urn, components, Coder::GlobalWindow)?,
            urns::INTERVAL_WINDOW => atom(urn, components, Coder::IntervalWindow)?,
            urns::KV => {
                let [key, value] = exactly(urn, components)?;
                Coder::kv(key, value)
            }
            urns::ITERABLE => {
                let [element] = exactly(urn, components)?;
                Coder::iterable(element)
            }
            urns::STATE_BACKED_ITERABLE => {
                let [element] = exactly(urn, components)?;
                Coder::StateBackedIterable(Box::new(element))
            }
            urns::LENGTH_PREFIX => {
                let [inner] = exactly(urn, components)?;
                Coder::length_prefix(inner)
            }
            urns::NULLABLE => {
                let [inner] = exactly(urn, components)?;
                Coder::Nullable(Box::new(inner))
            }
            urns::SHARDED_KEY => {
                let [key] = exactly(urn, components)?;
                Coder::ShardedKey(Box::new(key))
            }
            urns::CUSTOM_WINDOW => {
                let [window] = exactly(urn, components)?;
                Coder::CustomWindow(Box::new(window))
            }
            urns::TIMER => {
                let [key, window] = exactly(urn, components)?;
                Coder::Timer(Box::new(TimerCoder {
                    key,
                    window: WindowCoder::from_coder(window),
                }))
            }
            urns::WINDOWED_VALUE => {
                let [value, window] = exactly(urn, components)?;
                Coder::windowed_value(value, WindowCoder::from_coder(window))
            }
            urns::PARAM_WINDOWED_VALUE => {
                let [value, window] = exactly(urn, components)?;
                let window = WindowCoder::from_coder(window);
                let coder = ParamWindowedValueCoder::new(value, window, payload.clone());
                let coder = coder.map_err(|e| CoderError::Payload {
                    urn: urn.into(),
                    reason: e.to_string(),
                })?;
                Coder::ParamWindowedValue(Box::new(coder))
            }
            urns::ROW => {
                let [] = exactly(urn, components)?;
                let mut schema = parse_schema(payload)?;
                schema.set_payload(payload.clone());
                Coder::Row(Arc::new(schema))
            }
            _ => Coder::Unknown {
                urn: urn.into(),
                payload: payload.clone(),
                components,
            },
        })
    }

    /// The coder of a spec.
    ///
    /// # Errors
    /// As [`Coder::from_parts`].
    pub fn from_spec(spec: &CoderSpec, parse_schema: ParseSchema<'_>) -> Result<Coder, CoderError> {
        let components = spec.components.iter().map(|c| Coder::from_spec(c, parse_schema));
        Coder::from_parts(
            &spec.urn,
            &spec.payload,
            components.collect::<Result<_, _>>()?,
            parse_schema,
        )
    }

    /// The spec of a coder. A row coder's payload is the one that its schema was read from (empty for a schema built
    /// in memory, see [`Schema::set_payload`]).
    pub fn to_spec(&self) -> CoderSpec {
        match self {
            Coder::Bytes => CoderSpec::atom(urns::BYTES),
            Coder::Utf8 => CoderSpec::atom(urns::STRING_UTF8),
            Coder::Bool => CoderSpec::atom(urns::BOOL),
            Coder::VarInt => CoderSpec::atom(urns::VARINT),
            Coder::Double => CoderSpec::atom(urns::DOUBLE),
            Coder::GlobalWindow => CoderSpec::atom(urns::GLOBAL_WINDOW),
            Coder::IntervalWindow => CoderSpec::atom(urns::INTERVAL_WINDOW),
            Coder::Kv(kv) => CoderSpec::of(urns::KV, vec![kv.0.to_spec(), kv.1.to_spec()]),
            Coder::Iterable(element) => CoderSpec::of(urns::ITERABLE, vec![element.to_spec()]),
            Coder::StateBackedIterable(element) => {
                CoderSpec::of(urns::STATE_BACKED_ITERABLE, vec![element.to_spec()])
            }
            Coder::LengthPrefix(inner) => CoderSpec::of(urns::LENGTH_PREFIX, vec![inner.to_spec()]),
            Coder::Nullable(inner) => CoderSpec::of(urns::NULLABLE, vec![inner.to_spec()]),
            Coder::ShardedKey(key) => CoderSpec::of(urns::SHARDED_KEY, vec![key.to_spec()]),
            Coder::CustomWindow(window) => CoderSpec::of(urns::CUSTOM_WINDOW, vec![window.to_spec()]),
            Coder::Timer(timer) => CoderSpec::of(
                urns::TIMER,
                vec![timer.key.to_spec(), timer.window.to_coder().to_spec()],
            ),
            Coder::WindowedValue(coder) => CoderSpec::of(
                urns::WINDOWED_VALUE,
                vec![coder.value.to_spec(), coder.window.to_coder().to_spec()],
            ),
            Coder::ParamWindowedValue(coder) => CoderSpec {
                urn: urns::PARAM_WINDOWED_VALUE.into(),
                payload: coder.payload().clone(),
                components: vec![coder.value.to_spec(), coder.window.to_coder().to_spec()],
            },
            Coder::Row(schema) => CoderSpec {
                urn: urns::ROW.into(),
                payload: schema.payload().clone(),
                components: Vec::new(),
            },
            Coder::Unknown {
                urn,
                payload,
                components,
            } => CoderSpec {
                urn: urn.clone().into(),
                payload: payload.clone(),
                components: components.iter().map(Coder::to_spec).collect(),
            },
        }
    }
}

fn exactly<const N: usize>(urn: &str, components: Vec<Coder>) -> Result<[Coder; N], CoderError> {
    let got = components.len();
    components.try_into().map_err(|_| CoderError::ComponentCount {
        urn: urn.into(),
        expected: N,
        got,
    })
}

fn atom(urn: &str, components: Vec<Coder>, coder: Coder) -> Result<Coder, CoderError> {
    let [] = exactly(urn, components)?;
    Ok(coder)
}

/// Errors when a coder of these components would be too large to keep or too deep for recursion.
fn check_size(urn: &str, components: &[Coder]) -> Result<(), CoderError> {
    let mut parts = 0;
    for component in components {
        let (more, depth) = component.size();
        parts += more;
        if parts >= MAX_CODER_PARTS || depth >= MAX_CODER_DEPTH {
            return Err(CoderError::TooLarge { urn: urn.into() });
        }
    }
    Ok(())
}

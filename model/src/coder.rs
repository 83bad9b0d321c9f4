//! What a runner knows of the structure of an encoding.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::error::DecodeError;
use crate::schema::Schema;
use crate::timer::TimerCoder;
use crate::window::WindowCoder;
use crate::windowed::{ParamWindowedValueCoder, WindowedValueCoder};
use crate::{urns, wire};

type Result<T> = core::result::Result<T, DecodeError>;

/// A coder, as far as its encoding can be taken apart without making objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Coder {
    /// `beam:coder:bytes:v1`.
    Bytes,
    /// `beam:coder:string_utf8:v1`.
    Utf8,
    /// `beam:coder:bool:v1`.
    Bool,
    /// `beam:coder:varint:v1`.
    VarInt,
    /// `beam:coder:double:v1`.
    Double,
    /// `beam:coder:kv:v1`: key, value.
    Kv(Box<(Coder, Coder)>),
    /// `beam:coder:iterable:v1`.
    Iterable(Box<Coder>),
    /// `beam:coder:state_backed_iterable:v1`.
    StateBackedIterable(Box<Coder>),
    /// `beam:coder:length_prefix:v1`.
    LengthPrefix(Box<Coder>),
    /// `beam:coder:nullable:v1`.
    Nullable(Box<Coder>),
    /// `beam:coder:row:v1`.
    Row(Arc<Schema>),
    /// `beam:coder:sharded_key:v1` of the key's coder.
    ShardedKey(Box<Coder>),
    /// `beam:coder:timer:v1`.
    Timer(Box<TimerCoder>),
    /// `beam:coder:global_window:v1`.
    GlobalWindow,
    /// `beam:coder:interval_window:v1`.
    IntervalWindow,
    /// `beam:coder:custom_window:v1` of the window's own coder.
    CustomWindow(Box<Coder>),
    /// `beam:coder:windowed_value:v1`.
    WindowedValue(Box<WindowedValueCoder>),
    /// `beam:coder:param_windowed_value:v1`.
    ParamWindowedValue(Box<ParamWindowedValueCoder>),
    /// A coder of an SDK's own. Where its values end can be known only inside a length prefix.
    Unknown {
        /// Its URN.
        urn: String,
        /// Its payload.
        payload: Bytes,
        /// Its components.
        components: Vec<Coder>,
    },
}

impl Coder {
    /// A pair's coder.
    pub fn kv(key: Coder, value: Coder) -> Coder {
        Coder::Kv(Box::new((key, value)))
    }

    /// An iterable's coder.
    pub fn iterable(element: Coder) -> Coder {
        Coder::Iterable(Box::new(element))
    }

    /// A length-prefixed coder.
    pub fn length_prefix(inner: Coder) -> Coder {
        Coder::LengthPrefix(Box::new(inner))
    }

    /// A nullable coder.
    pub fn nullable(inner: Coder) -> Coder {
        Coder::Nullable(Box::new(inner))
    }

    /// A windowed value's coder.
    pub fn windowed_value(value: Coder, window: WindowCoder) -> Coder {
        Coder::WindowedValue(Box::new(WindowedValueCoder { value, window }))
    }

    /// A coder known by name only.
    pub fn unknown(urn: impl Into<String>) -> Coder {
        Coder::Unknown {
            urn: urn.into(),
            payload: Bytes::new(),
            components: Vec::new(),
        }
    }

    /// The URN.
    pub fn urn(&self) -> &str {
        match self {
            Coder::Bytes => urns::BYTES,
            Coder::Utf8 => urns::STRING_UTF8,
            Coder::Bool => urns::BOOL,
            Coder::VarInt => urns::VARINT,
            Coder::Double => urns::DOUBLE,
            Coder::Kv(_) => urns::KV,
            Coder::Iterable(_) => urns::ITERABLE,
            Coder::StateBackedIterable(_) => urns::STATE_BACKED_ITERABLE,
            Coder::LengthPrefix(_) => urns::LENGTH_PREFIX,
            Coder::Nullable(_) => urns::NULLABLE,
            Coder::Row(_) => urns::ROW,
            Coder::ShardedKey(_) => urns::SHARDED_KEY,
            Coder::Timer(_) => urns::TIMER,
            Coder::GlobalWindow => urns::GLOBAL_WINDOW,
            Coder::IntervalWindow => urns::INTERVAL_WINDOW,
            Coder::CustomWindow(_) => urns::CUSTOM_WINDOW,
            Coder::WindowedValue(_) => urns::WINDOWED_VALUE,
            Coder::ParamWindowedValue(_) => urns::PARAM_WINDOWED_VALUE,
            Coder::Unknown { urn, .. } => urn,
        }
    }

    /// The coders of key and value, when this is a pair's coder.
    pub fn as_kv(&self) -> Option<(&Coder, &Coder)> {
        match self {
            Coder::Kv(kv) => Some((&kv.0, &kv.1)),
            _ => None,
        }
    }

    /// The coder of the elements, when this is an iterable's coder, state-backed or not.
    pub fn as_iterable(&self) -> Option<&Coder> {
        match self {
            Coder::Iterable(element) | Coder::StateBackedIterable(element) => Some(element),
            _ => None,
        }
    }

    /// Moves past one value. The runner's hot loop: no allocation, no check of what is inside of strings.
    ///
    /// In the outer context byte strings, strings and unknown coders run to the end of the input.
    ///
    /// # Errors
    /// When the input ends too early or is not of this coder, and when an unknown coder is met in the nested context.
    #[inline]
    pub fn skip(&self, input: &mut &[u8], nested: bool) -> Result<()> {
        match self {
            Coder::Bytes | Coder::Utf8 => wire::read_bytes(input, nested).map(|_| ()),
            Coder::VarInt => wire::skip_varint(input),
            Coder::Kv(kv) => {
                kv.0.skip(input, true)?;
                kv.1.skip(input, nested)
            }
            Coder::LengthPrefix(_) => wire::read_bytes(input, true).map(|_| ()),
            _ => self.skip_more(input, nested),
        }
    }

    fn skip_more(&self, input: &mut &[u8], nested: bool) -> Result<()> {
        match self {
            Coder::Bytes | Coder::Utf8 | Coder::VarInt | Coder::Kv(_) | Coder::LengthPrefix(_) => {
                self.skip(input, nested)
            }
            Coder::Bool => wire::read_bool(input, "a boolean").map(|_| ()),
            Coder::Double => wire::take(input, 8, "a double").map(|_| ()),
            Coder::Iterable(element) | Coder::StateBackedIterable(element) => {
                skip_iterable(input, element.min_size(), |input| element.skip(input, true))
            }
            Coder::Nullable(inner) => match wire::read_bool(input, "the mark of a nullable value")? {
                true => inner.skip(input, nested),
                false => Ok(()),
            },
            Coder::Row(schema) => schema.skip(input),
            Coder::ShardedKey(key) => {
                wire::read_bytes(input, true)?;
                key.skip(input, true)
            }
            Coder::Timer(timer) => timer.skip(input),
            Coder::GlobalWindow => Ok(()),
            Coder::IntervalWindow => WindowCoder::Interval.skip(input, nested),
            Coder::CustomWindow(window) => {
                wire::take(input, 8, "a custom window")?;
                window.skip(input, nested)
            }
            Coder::WindowedValue(coder) => {
                coder.skip_header(input)?;
                coder.value.skip(input, nested)
            }
            Coder::ParamWindowedValue(coder) => coder.value.skip(input, nested),
            Coder::Unknown { urn, .. } => {
                if nested {
                    return Err(DecodeError::UnknownCoder {
                        urn: urn.as_str().into(),
                    });
                }
                wire::take_rest(input);
                Ok(())
            }
        }
    }

    /// Takes the bytes of one value.
    ///
    /// # Errors
    /// As [`Coder::skip`].
    #[inline]
    pub fn take<'a>(&self, input: &mut &'a [u8], nested: bool) -> Result<&'a [u8]> {
        let before = *input;
        self.skip(input, nested)?;
        Ok(&before[..before.len() - input.len()])
    }

    /// The bytes of key (nested context) and value of a pair's encoding. What follows the key is the value, in
    /// whichever context the pair was.
    ///
    /// # Errors
    /// When this is not a pair's coder, or as [`Coder::skip`].
    #[inline]
    pub fn split_kv<'a>(&self, encoded: &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
        let Coder::Kv(kv) = self else {
            return Err(DecodeError::NotKv {
                coder: self.urn().into(),
            });
        };
        let mut rest = encoded;
        let key = kv.0.take(&mut rest, true)?;
        Ok((key, rest))
    }

    /// The elements of an iterable's encoding, one slice each (nested context), read with the elements' coder.
    ///
    /// # Errors
    /// When this is not an iterable's coder, or the encoding ends before its first count.
    pub fn iterable_elements<'a>(&'a self, encoded: &'a [u8]) -> Result<IterableElements<'a>> {
        match self.as_iterable() {
            Some(element) => IterableElements::new(element, encoded),
            None => Err(DecodeError::NotIterable {
                coder: self.urn().into(),
            }),
        }
    }

    /// Whether the end of every value is known in the nested context: no unknown coder outside of a length prefix.
    pub fn knows_boundary(&self) -> bool {
        match self {
            Coder::Unknown { .. } => false,
            Coder::Row(schema) => schema.knows_boundary(),
            Coder::Kv(kv) => kv.0.knows_boundary() && kv.1.knows_boundary(),
            Coder::Iterable(inner)
            | Coder::StateBackedIterable(inner)
            | Coder::Nullable(inner)
            | Coder::ShardedKey(inner)
            | Coder::CustomWindow(inner) => inner.knows_boundary(),
            Coder::Timer(timer) => timer.key.knows_boundary() && timer.window.to_coder().knows_boundary(),
            Coder::WindowedValue(coder) => {
                coder.value.knows_boundary() && coder.window.to_coder().knows_boundary()
            }
            Coder::ParamWindowedValue(coder) => coder.value.knows_boundary(),
            Coder::Bytes
            | Coder::Utf8
            | Coder::Bool
            | Coder::VarInt
            | Coder::Double
            | Coder::LengthPrefix(_)
            | Coder::GlobalWindow
            | Coder::IntervalWindow => true,
        }
    }

    /// The same coder with every part whose end is not known (see [`Coder::knows_boundary`]) in a length prefix.
    #[must_use]
    pub fn length_prefix_unknown(&self) -> Coder {
        let wrap = |inner: &Coder| Box::new(inner.length_prefix_unknown());
        let wrap_window = |window: &WindowCoder| match window {
            WindowCoder::Global => WindowCoder::Global,
            WindowCoder::Interval => WindowCoder::Interval,
            WindowCoder::Custom(inner) => WindowCoder::Custom(wrap(inner)),
            WindowCoder::Opaque(coder) => WindowCoder::Opaque(wrap(coder)),
        };
        match self {
            Coder::Unknown { .. } => Coder::length_prefix(self.clone()),
            Coder::Row(schema) if !schema.knows_boundary() => Coder::length_prefix(self.clone()),
            Coder::Kv(kv) => Coder::kv(kv.0.length_prefix_unknown(), kv.1.length_prefix_unknown()),
            Coder::Iterable(inner) => Coder::Iterable(wrap(inner)),
            Coder::StateBackedIterable(inner) => Coder::StateBackedIterable(wrap(inner)),
            Coder::Nullable(inner) => Coder::Nullable(wrap(inner)),
            Coder::ShardedKey(inner) => Coder::ShardedKey(wrap(inner)),
            Coder::CustomWindow(inner) => Coder::CustomWindow(wrap(inner)),
            Coder::Timer(timer) => Coder::Timer(Box::new(TimerCoder {
                key: timer.key.length_prefix_unknown(),
                window: wrap_window(&timer.window),
            })),
            Coder::WindowedValue(coder) => {
                Coder::windowed_value(coder.value.length_prefix_unknown(), wrap_window(&coder.window))
            }
            // The payload's windows are encoded by the window coder as it is, so that one stays.
            Coder::ParamWindowedValue(coder) => {
                Coder::ParamWindowedValue(Box::new(coder.with_value(coder.value.length_prefix_unknown())))
            }
            Coder::Bytes
            | Coder::Utf8
            | Coder::Bool
            | Coder::VarInt
            | Coder::Double
            | Coder::Row(_)
            | Coder::LengthPrefix(_)
            | Coder::GlobalWindow
            | Coder::IntervalWindow => self.clone(),
        }
    }

    /// How many coders this is made of, itself included, and how deep they are in each other.
    pub(crate) fn size(&self) -> (usize, usize) {
        let of = |parts: &[&Coder]| {
            let sizes = parts.iter().map(|part| part.size());
            let (count, depth) =
                sizes.fold((0, 0), |(count, depth), size| (count + size.0, depth.max(size.1)));
            (count + 1, depth + 1)
        };
        let with_window = |part: &Coder, window: &WindowCoder| match window {
            WindowCoder::Global | WindowCoder::Interval => of(&[part]),
            WindowCoder::Custom(inner) | WindowCoder::Opaque(inner) => of(&[part, inner]),
        };
        match self {
            Coder::Kv(kv) => of(&[&kv.0, &kv.1]),
            Coder::Iterable(inner)
            | Coder::StateBackedIterable(inner)
            | Coder::LengthPrefix(inner)
            | Coder::Nullable(inner)
            | Coder::ShardedKey(inner)
            | Coder::CustomWindow(inner) => of(&[inner]),
            Coder::Timer(timer) => with_window(&timer.key, &timer.window),
            Coder::WindowedValue(coder) => with_window(&coder.value, &coder.window),
            Coder::ParamWindowedValue(coder) => with_window(&coder.value, &coder.window),
            Coder::Unknown { components, .. } => of(&components.iter().collect::<Vec<_>>()),
            Coder::Bytes
            | Coder::Utf8
            | Coder::Bool
            | Coder::VarInt
            | Coder::Double
            | Coder::Row(_)
            | Coder::GlobalWindow
            | Coder::IntervalWindow => (1, 1),
        }
    }

    /// The fewest bytes that a value can have in the nested context.
    pub fn min_size(&self) -> usize {
        match self {
            Coder::Bytes | Coder::Utf8 | Coder::Bool | Coder::VarInt | Coder::LengthPrefix(_) => 1,
            Coder::Nullable(_) => 1,
            Coder::Double => 8,
            Coder::Kv(kv) => kv.0.min_size() + kv.1.min_size(),
            Coder::Iterable(_) | Coder::StateBackedIterable(_) => 4,
            Coder::Row(_) => 2,
            Coder::ShardedKey(key) => 1 + key.min_size(),
            Coder::Timer(timer) => timer.key.min_size() + 1 + 4 + 1,
            Coder::GlobalWindow | Coder::Unknown { .. } => 0,
            Coder::IntervalWindow => 9,
            Coder::CustomWindow(window) => 8 + window.min_size(),
            Coder::WindowedValue(coder) => 8 + 4 + 1 + coder.value.min_size(),
            Coder::ParamWindowedValue(coder) => coder.value.min_size(),
        }
    }
}

/// Moves past an iterable of either form: a count and the elements, or -1 and chunks of elements up to a chunk of
/// count 0 or, with -1, a state token.
pub(crate) fn skip_iterable(
    input: &mut &[u8],
    min_size: usize,
    mut skip_element: impl FnMut(&mut &[u8]) -> Result<()>,
) -> Result<()> {
    let mut chunks = Chunks::start(input)?;
    while let Some(count) = chunks.next(input, min_size)? {
        for _ in 0..count {
            skip_element(input)?;
        }
    }
    Ok(())
}

/// The chunks of an iterable, of which one of known length has only one.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<'a> {
    known: Option<i32>,
    done: bool,
    /// Set at the end when the rest is in the runner's state.
    pub token: Option<&'a [u8]>,
}

impl<'a> Chunks<'a> {
    #[inline]
    pub(crate) fn start(input: &mut &'a [u8]) -> Result<Self> {
        let count = wire::read_i32_be(input, "the number of elements of an iterable")?;
        let known = match count {
            -1 => None,
            count => Some(count),
        };
        Ok(Chunks {
            known,
            done: false,
            token: None,
        })
    }

    /// The number of elements of the next chunk; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self, input: &mut &'a [u8], min_size: usize) -> Result<Option<usize>> {
        const WHAT: &str = "the number of elements of an iterable";
        if self.done {
            return Ok(None);
        }
        if let Some(count) = self.known {
            self.done = true;
            return wire::checked_count(i64::from(count), min_size, input.len(), WHAT).map(Some);
        }
        match wire::read_varint(input)? as i64 {
            0 => {
                self.done = true;
                Ok(None)
            }
            -1 => {
                self.done = true;
                self.token = Some(wire::read_bytes(input, true)?);
                Ok(None)
            }
            count => wire::checked_count(count, min_size, input.len(), WHAT).map(Some),
        }
    }
}

/// The elements of an encoded iterable, as slices. Made by [`Coder::iterable_elements`].
#[derive(Clone, Debug)]
pub struct IterableElements<'a> {
    element: &'a Coder,
    min_size: usize,
    input: &'a [u8],
    chunks: Chunks<'a>,
    left: usize,
    failed: bool,
}

impl<'a> IterableElements<'a> {
    fn new(element: &'a Coder, encoded: &'a [u8]) -> Result<Self> {
        let mut input = encoded;
        let chunks = Chunks::start(&mut input)?;
        Ok(IterableElements {
            element,
            min_size: element.min_size(),
            input,
            chunks,
            left: 0,
            failed: false,
        })
    }

    /// Once all elements are taken: the token under which the rest is in the runner's state, if there is a rest.
    pub fn state_token(&self) -> Option<&'a [u8]> {
        self.chunks.token
    }

    /// What follows the iterable, once all elements are taken.
    pub fn rest(&self) -> &'a [u8] {
        self.input
    }

    fn advance(&mut self) -> Result<Option<&'a [u8]>> {
        while self.left == 0 {
            match self.chunks.next(&mut self.input, self.min_size)? {
                None => return Ok(None),
                Some(count) => self.left = count,
            }
            if self.left == 0 && self.chunks.done {
                return Ok(None);
            }
        }
        self.left -= 1;
        self.element.take(&mut self.input, true).map(Some)
    }
}

impl<'a> Iterator for IterableElements<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl fmt::Display for Coder {
    /// The coder's structure in short: `kv<bytes, varint>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urn = self.urn();
        let name = match urn
            .strip_prefix("beam:coder:")
            .and_then(|name| name.strip_suffix(":v1"))
        {
            Some(name) if !matches!(self, Coder::Unknown { .. }) => name,
            _ => urn,
        };
        f.write_str(name)?;
        match self {
            Coder::Kv(kv) => write!(f, "<{}, {}>", kv.0, kv.1),
            Coder::Iterable(inner)
            | Coder::StateBackedIterable(inner)
            | Coder::LengthPrefix(inner)
            | Coder::Nullable(inner)
            | Coder::ShardedKey(inner)
            | Coder::CustomWindow(inner) => write!(f, "<{inner}>"),
            Coder::Timer(timer) => write!(f, "<{}, {}>", timer.key, timer.window.to_coder()),
            Coder::WindowedValue(coder) => write!(f, "<{}, {}>", coder.value, coder.window.to_coder()),
            Coder::ParamWindowedValue(coder) => write!(f, "<{}, {}>", coder.value, coder.window.to_coder()),
            Coder::Row(schema) => write!(f, "<{schema}>"),
            _ => Ok(()),
        }
    }
}

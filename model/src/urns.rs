//! URNs of the coders and of the schemas' logical types that are treated by name.

/// Byte strings.
pub const BYTES: &str = "beam:coder:bytes:v1";
/// UTF-8 strings.
pub const STRING_UTF8: &str = "beam:coder:string_utf8:v1";
/// Booleans, one byte.
pub const BOOL: &str = "beam:coder:bool:v1";
/// 64-bit signed integers as varints of their two's complement.
pub const VARINT: &str = "beam:coder:varint:v1";
/// 64-bit floats, big endian.
pub const DOUBLE: &str = "beam:coder:double:v1";
/// Pairs; components: key, value.
pub const KV: &str = "beam:coder:kv:v1";
/// Sequences; component: element.
pub const ITERABLE: &str = "beam:coder:iterable:v1";
/// Sequences whose rest may be in the runner's state; component: element.
pub const STATE_BACKED_ITERABLE: &str = "beam:coder:state_backed_iterable:v1";
/// A value preceded by its length; component: the value's coder.
pub const LENGTH_PREFIX: &str = "beam:coder:length_prefix:v1";
/// A value or null; component: the value's coder.
pub const NULLABLE: &str = "beam:coder:nullable:v1";
/// Rows; the payload is the serialized schema.
pub const ROW: &str = "beam:coder:row:v1";
/// Keys with a shard id; component: key.
pub const SHARDED_KEY: &str = "beam:coder:sharded_key:v1";
/// Timers; components: key, window.
pub const TIMER: &str = "beam:coder:timer:v1";
/// The global window: no bytes.
pub const GLOBAL_WINDOW: &str = "beam:coder:global_window:v1";
/// Interval windows: end and span.
pub const INTERVAL_WINDOW: &str = "beam:coder:interval_window:v1";
/// Windows of a user's type, preceded by their maximum timestamp; component: the window's own coder.
pub const CUSTOM_WINDOW: &str = "beam:coder:custom_window:v1";
/// Values with timestamp, windows and pane; components: value, window.
pub const WINDOWED_VALUE: &str = "beam:coder:windowed_value:v1";
/// Values whose timestamp, windows and pane are in the coder's payload; components: value, window.
pub const PARAM_WINDOWED_VALUE: &str = "beam:coder:param_windowed_value:v1";
/// Rust types that travel by serde (in the postcard format). Known to Purlin's SDK only.
pub const SERDE: &str = "purlin:coder:serde:v1";

/// Milliseconds since the epoch, in rows encoded as a timestamp and not as the varint of its representation.
pub const LOGICAL_MILLIS_INSTANT: &str = "beam:logical_type:millis_instant:v1";
/// Decimals, in rows encoded as scale and unscaled value and not as the bytes of its representation.
pub const LOGICAL_DECIMAL: &str = "beam:logical_type:decimal:v1";
/// Any Python object, in rows encoded with a coder that only Python knows.
pub const LOGICAL_PYTHON_ANY: &str = "beam:logical:pythonsdk_any:v1";

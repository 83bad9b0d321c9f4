//! The log: to stderr, for people or for the SDKs that start the service as a child.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt as lines};

use crate::options::LogKind;
use crate::time::rfc3339;

/// A log level that is none.
#[derive(Debug, thiserror::Error)]
#[error("--log_level={given}: {reason}; give debug, info, warn or error")]
pub struct LogLevelError {
    given: String,
    reason: String,
}

/// Sends the log of this process to stderr from now on.
pub fn init(level: &str, kind: LogKind) -> Result<(), LogLevelError> {
    let wrong = |reason: String| LogLevelError {
        given: level.to_owned(),
        reason,
    };
    let filter: Targets = level
        .to_lowercase()
        .parse()
        .map_err(|e: tracing_subscriber::filter::ParseError| wrong(e.to_string()))?;
    let layer = lines::layer().with_writer(std::io::stderr);
    let layer = match kind {
        LogKind::Dev => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogKind::Json => layer.event_format(Lines { json: true }).boxed(),
        LogKind::Text => layer.event_format(Lines { json: false }).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(|e| wrong(e.to_string()))
}

/// One event a line, with the names that Go's `slog` gives: Beam's SDKs read them of Prism's log.
struct Lines {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = line(SystemTime::now(), event.metadata(), fields);
        if self.json {
            return writeln!(writer, "{}", Value::Object(line));
        }
        for (i, (key, value)) in line.iter().filter(|(key, _)| *key != "source").enumerate() {
            let space = if i == 0 { "" } else { " " };
            match value {
                Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=', '\n']) => {
                    write!(writer, "{space}{key}={text}")?;
                }
                value => write!(writer, "{space}{key}={value}")?,
            }
        }
        writeln!(writer)
    }
}

fn line(now: SystemTime, metadata: &tracing::Metadata<'_>, mut fields: Fields) -> Map<String, Value> {
    let mut line = Map::new();
    let level = match *metadata.level() {
        Level::TRACE => "DEBUG-4",
        Level::DEBUG => "DEBUG",
        Level::INFO => "INFO",
        Level::WARN => "WARN",
        Level::ERROR => "ERROR",
    };
    line.insert("time".into(), rfc3339(now).into());
    line.insert("level".into(), level.into());
    let source = json!({
        "function": metadata.target(), "file": metadata.file().unwrap_or_default(), "line": metadata.line(),
    });
    line.insert("source".into(), source);
    if metadata.target() == "sdk_worker" {
        line.insert("msg".into(), "log from SDK worker".into());
        line.insert("worker".into(), json!({ "ID": fields.named.remove("worker") }));
        line.insert("sdk".into(), json!({ "msg": fields.message }));
    } else {
        line.insert("msg".into(), fields.message.into());
    }
    line.extend(
        fields
            .named
            .into_iter()
            .filter(|(_, v)| v.as_str() != Some(""))
            .map(|(k, v)| (k.to_owned(), v)),
    );
    line
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    named: BTreeMap<&'static str, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), &value) {
            ("message", Value::String(text)) => self.message.clone_from(text),
            (name, _) => {
                self.named.insert(name, value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io::Write;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Sink;
        fn make_writer(&'a self) -> Sink {
            self.clone()
        }
    }

    fn logged(json: bool, emit: impl FnOnce()) -> String {
        let sink = Sink::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(sink.clone())
            .event_format(Lines { json })
            .finish();
        tracing::subscriber::with_default(subscriber, emit);
        String::from_utf8(sink.0.lock().clone()).unwrap()
    }

    #[test]
    fn json_lines_have_the_fields_that_the_sdks_read() {
        let text = logged(true, || tracing::warn!(job = "j-1", attempts = 3, "two\nlines"));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["level"], &value["msg"], &value["job"]),
            (&json!("WARN"), &json!("two\nlines"), &json!("j-1"))
        );
        assert_eq!(value["attempts"], json!(3));
        assert!(value["source"]["line"].is_u64() && value["time"].as_str().unwrap().ends_with("+00:00"));
        assert_eq!(text.lines().count(), 1);

        let text = logged(
            true,
            || tracing::info!(target: "sdk_worker", worker = "w-1", "from the SDK"),
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["msg"], json!("log from SDK worker"));
        assert_eq!(
            (&value["worker"]["ID"], &value["sdk"]["msg"]),
            (&json!("w-1"), &json!("from the SDK"))
        );
    }

    #[test]
    fn text_lines_are_pairs() {
        let text = logged(false, || tracing::info!(job = "j-1", "a b"));
        assert!(
            text.contains("level=INFO") && text.contains("job=j-1") && text.contains("msg=\"a b\""),
            "{text}"
        );
    }
}

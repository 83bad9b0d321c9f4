//! Java's stack traces, read for their causes.

/// The innermost cause of a stack trace: its message, which holds what user code said, without the lines that say where.
pub(super) fn root_cause(trace: &str) -> String {
    let mut lines = Vec::new();
    // Flink frames the traces of its own services so.
    let framed = |line: &&str| !line.contains("xception on server side");
    for line in trace.lines().filter(framed) {
        if let Some(cause) = line.strip_prefix("Caused by: ") {
            lines.clear();
            lines.push(cause);
        } else if !line.starts_with("\tat ")
            && !line.starts_with("\t... ")
            && !line.starts_with("\tSuppressed: ")
        {
            lines.push(line);
        }
    }
    let text = lines.join("\n");
    without_classes(text.trim()).to_owned()
}

/// A message without the classes of exceptions that it begins with: they only wrap what is said.
fn without_classes(mut message: &str) -> &str {
    const WRAPPERS: [&str; 4] = [
        "java.lang.RuntimeException: ",
        "java.util.concurrent.ExecutionException: ",
        "java.util.concurrent.CompletionException: ",
        "org.apache.beam.sdk.util.UserCodeException: ",
    ];
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| message.strip_prefix(wrapper)) {
        message = rest;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_is_told() {
        let trace = "java.lang.Exception: outer\n\tat a.b(C.java:1)\n\tat a.c(C.java:2)\nCaused by: java.util.concurrent.ExecutionException: \
                     java.lang.RuntimeException: Error received from SDK harness for instruction 2: Traceback (most recent call last):\n  File \
                     \"x.py\", line 3, in process\n    raise ValueError('no')\nValueError: no\n\tat d.e(F.java:9)\n\t... 3 more\n\tSuppressed: x\n";
        assert_eq!(
            root_cause(trace),
            "Error received from SDK harness for instruction 2: Traceback (most recent call last):\n  File \"x.py\", line 3, in process\n    \
             raise ValueError('no')\nValueError: no"
        );
    }

    #[test]
    fn what_a_server_puts_around_a_trace_is_left_out() {
        let trace = "org.apache.flink.X: no\n<Exception on server side:\norg.apache.flink.X: no\n\tat a.b(C.java:1)\nCaused by: \
                     java.lang.ClassNotFoundException: a.B\n\tat c.d(E.java:1)\n\nEnd of exception on server side>";
        assert_eq!(root_cause(trace), "java.lang.ClassNotFoundException: a.B");
    }

    #[test]
    fn a_message_alone_is_itself() {
        assert_eq!(root_cause("no slots\n"), "no slots");
        assert_eq!(root_cause(""), "");
    }
}

//! The processes below one, by what `/proc` says.

use std::collections::HashMap;

use rustix::process::{Pid, Signal, kill_process};

/// One line of the process table.
struct Row {
    pid: i32,
    parent: i32,
    zombie: bool,
}

fn rows() -> Vec<Row> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name is in parentheses, and may hold any.
            let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
            let zombie = fields.next()? == "Z";
            let parent = fields.next()?.parse().ok()?;
            Some(Row { pid, parent, zombie })
        })
        .collect()
}

/// The living processes that `ancestor` started, and that those started.
pub(crate) fn descendants(ancestor: i32) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<Row>> = HashMap::new();
    for row in rows() {
        children.entry(row.parent).or_default().push(row);
    }
    let mut found = Vec::new();
    let mut open = vec![ancestor];
    while let Some(parent) = open.pop() {
        for row in children.remove(&parent).unwrap_or_default() {
            open.push(row.pid);
            if !row.zombie {
                found.extend(Pid::from_raw(row.pid));
            }
        }
    }
    found
}

/// Signals them all.
pub(crate) fn signal_all(processes: &[Pid], signal: Signal) {
    for &process in processes {
        // One that has just ended is as wanted.
        let _ = kill_process(process, signal);
    }
}

/// Bytes of memory that these processes hold, without files that are mapped: the system can drop those at any time.
pub(crate) fn resident(processes: &[Pid]) -> u64 {
    let kib = processes.iter().filter_map(|process| {
        let path = format!("/proc/{}/status", process.as_raw_nonzero());
        let status = std::fs::read_to_string(path).ok()?;
        let sizes = status.lines().filter_map(|line| {
            let rest = line
                .strip_prefix("RssAnon:")
                .or_else(|| line.strip_prefix("RssShmem:"))?;
            rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        Some(sizes.sum::<u64>())
    });
    kib.sum::<u64>() << 10
}

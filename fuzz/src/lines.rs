//! Text files, changed line by line.

use crate::input::Input;

type Lines = Vec<Vec<u8>>;

/// What a format changes besides: something of its lines, by the number of one, and a value in a line.
pub struct Changes {
    pub lines: fn(&mut Lines, usize, &mut Input<'_>),
    pub value: fn(&mut Vec<u8>, &mut Input<'_>),
}

/// One of the files, changed until the input is used up.
pub fn changed(files: &[&str], input: &mut Input<'_>, changes: &Changes) -> Vec<u8> {
    let file = input.pick(files).map_or("", |file| *file);
    let mut lines: Lines = file.lines().map(|line| line.as_bytes().to_vec()).collect();
    while !input.is_empty() {
        change(&mut lines, input, changes);
    }
    lines.join(&b'\n')
}

fn change(lines: &mut Lines, input: &mut Input<'_>, changes: &Changes) {
    // The first ones: what comes later in a large file is mostly alike.
    let number = input.below(256).min(lines.len().saturating_sub(1));
    let Some(line) = lines.get_mut(number) else { return };
    match input.below(6) {
        0 => {
            lines.remove(number);
        }
        1 => {
            let twin = line.clone();
            lines.insert(number, twin);
        }
        2 => (changes.lines)(lines, number, input),
        3 => {
            let at = input.below(line.len());
            if let Some(byte) = line.get_mut(at) {
                *byte = input.byte();
            }
        }
        _ => (changes.value)(line, input),
    }
}

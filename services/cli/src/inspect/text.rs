//! A directory for people.

use std::collections::BTreeMap;

use gguf::{Array, Directory, Kind, Metadata, Value};

use crate::{
    inspect::Inspected,
    output::{Style, one_line},
    table::{Column, Table},
    units,
};

/// Characters of a value that are shown unless everything is asked for.
const VALUE_CHARS_MAX: usize = 72;

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sections {
    pub(super) metadata: bool,
    pub(super) tensors: bool,
    /// Do not shorten values.
    pub(super) full: bool,
}

/// Everything that was asked for, line by line.
pub(super) fn lines(inspected: &Inspected, sections: &Sections, style: Style) -> Vec<String> {
    let directory = &inspected.directory;
    let mut lines = heading(inspected, style);
    if sections.metadata {
        lines.push(String::new());
        lines.extend(metadata(directory.metadata(), sections.full, style));
    }
    if sections.tensors {
        lines.push(String::new());
        lines.extend(tensors(directory, style));
    }
    lines
}

fn heading(inspected: &Inspected, style: Style) -> Vec<String> {
    let directory = &inspected.directory;
    let mut lines: Vec<String> = inspected
        .files
        .iter()
        .map(|file| {
            let name = one_line(&file.path.display().to_string());
            format!("{} ({})", style.bold(&name), units::bytes(file.file_bytes))
        })
        .collect();
    let architecture = match directory.metadata().get("general.architecture") {
        Some(Value::String(name)) => one_line(&name.to_string()),
        _ => "no architecture".to_owned(),
    };
    let parameters: u64 = directory
        .tensors()
        .iter()
        .map(|tensor| tensor.shape.n_elements())
        .fold(0, u64::saturating_add);
    let header_bytes: u64 = (0..directory.split_count())
        .map(|split| directory.header_len(split))
        .sum();
    lines.push(format!(
        "GGUF v{}, {architecture}, {} parameters; header {}, alignment {}",
        directory.version(),
        units::count(parameters),
        units::bytes(header_bytes),
        directory.alignment(),
    ));
    lines.push(format!(
        "{} tensors in {} extents, {}: {}",
        directory.tensors().len(),
        directory.extents().len(),
        units::bytes(directory.tensor_bytes()),
        types(directory),
    ));
    lines
}

/// `Q8_0 29 (5.0 MiB), F32 10 (10.0 KiB)`, the largest share first.
fn types(directory: &Directory) -> String {
    let mut shares: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in directory.tensors() {
        let share = shares.entry(tensor.tensor_type.name()).or_default();
        share.0 += 1;
        share.1 += tensor.len_bytes;
    }
    let mut shares = Vec::from_iter(shares);
    shares.sort_by_key(|(_, (_, bytes))| std::cmp::Reverse(*bytes));
    let words = shares
        .into_iter()
        .map(|(name, (count, bytes))| format!("{name} {count} ({})", units::bytes(bytes)));
    words.collect::<Vec<_>>().join(", ")
}

fn metadata(metadata: &Metadata, full: bool, style: Style) -> Vec<String> {
    let mut table = Table::new([
        Column::Left("KEY"),
        Column::Left("TYPE"),
        Column::Left("VALUE"),
    ]);
    for (key, value) in metadata.iter() {
        table.row([one_line(key), type_name(value), value_text(value, full)]);
    }
    table.lines(style)
}

/// `u32`, `string[2000]`.
fn type_name(value: &Value) -> String {
    match (value.kind(), value) {
        (Kind::Many(element), Value::Array(array)) => format!("{element}[{}]", array.len()),
        (kind, _) => kind.to_string(),
    }
}

fn value_text(value: &Value, full: bool) -> String {
    let chars_max = if full { usize::MAX } else { VALUE_CHARS_MAX };
    match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::String(v) => shortened([quoted(v.as_bytes())].into_iter(), chars_max),
        Value::Array(array) => array_text(array, chars_max),
    }
}

fn array_text(array: &Array, chars_max: usize) -> String {
    fn plain<T: ToString>(items: &[T], chars_max: usize) -> String {
        shortened(items.iter().map(T::to_string), chars_max)
    }
    match array {
        Array::U8(v) => plain(v, chars_max),
        Array::I8(v) => plain(v, chars_max),
        Array::U16(v) => plain(v, chars_max),
        Array::I16(v) => plain(v, chars_max),
        Array::U32(v) => plain(v, chars_max),
        Array::I32(v) => plain(v, chars_max),
        Array::U64(v) => plain(v, chars_max),
        Array::I64(v) => plain(v, chars_max),
        Array::F32(v) => plain(v, chars_max),
        Array::F64(v) => plain(v, chars_max),
        Array::Bool(v) => plain(v, chars_max),
        Array::String(v) => shortened(v.iter().map(quoted), chars_max),
    }
}

/// Items with spaces between, cut off with `…` where they would pass `chars_max`.
fn shortened(items: impl Iterator<Item = String>, chars_max: usize) -> String {
    let mut text = String::new();
    let mut chars = 0;
    for item in items {
        if !text.is_empty() {
            text.push(' ');
            chars += 1;
        }
        for character in item.chars() {
            if chars == chars_max {
                text.push('…');
                return text;
            }
            text.push(character);
            chars += 1;
        }
    }
    text
}

/// Quotes as in Rust source; what is not UTF-8 becomes U+FFFD.
fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn tensors(directory: &Directory, style: Style) -> Vec<String> {
    let mut table = Table::new([
        Column::Left("TENSOR"),
        Column::Left("TYPE"),
        Column::Left("SHAPE"),
        Column::Right("BYTES"),
        Column::Right("OFFSET"),
        Column::Right("FILE"),
        Column::Right("EXTENTS"),
    ]);
    for tensor in directory.tensors() {
        let dims: Vec<String> = tensor.shape.dims().iter().map(u64::to_string).collect();
        table.row([
            one_line(&tensor.name),
            tensor.tensor_type.name().to_owned(),
            dims.join("×"),
            tensor.len_bytes.to_string(),
            tensor.offset_bytes.to_string(),
            tensor.split_index.to_string(),
            tensor.extents.len().to_string(),
        ]);
    }
    table.lines(style)
}

//! A `.proto` file with all its messages and enums by their full names (without the package), and the line on which each thing stands.

use std::collections::BTreeMap;

use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, SourceCodeInfo,
};

/// Numbers by which descriptor.proto calls the parts of a file, from which the paths of places are made.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const ENUM_VALUE: i32 = 2;

/// One message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) proto: &'a DescriptorProto,
    pub(crate) line: usize,
    /// By number, each with its line.
    pub(crate) fields: BTreeMap<i32, (&'a FieldDescriptorProto, usize)>,
}

impl<'a> Message<'a> {
    pub(crate) fn field_named(&self, name: &str) -> Option<&(&'a FieldDescriptorProto, usize)> {
        self.fields.values().find(|(field, _)| field.name() == name)
    }
}

/// One enum.
#[derive(Debug)]
pub(crate) struct Enum<'a> {
    pub(crate) proto: &'a EnumDescriptorProto,
    pub(crate) line: usize,
    /// Of each value, in its order.
    pub(crate) value_lines: Vec<usize>,
}

/// The whole file.
#[derive(Debug, Default)]
pub(crate) struct Tree<'a> {
    pub(crate) messages: BTreeMap<String, Message<'a>>,
    pub(crate) enums: BTreeMap<String, Enum<'a>>,
}

impl<'a> Tree<'a> {
    pub(crate) fn of(file: &'a FileDescriptorProto) -> Self {
        let lines = Lines::of(file.source_code_info.as_ref());
        let mut tree = Self::default();
        for (index, message) in indexed(&file.message_type) {
            tree.add_message("", message, vec![FILE_MESSAGE, index], &lines);
        }
        for (index, one) in indexed(&file.enum_type) {
            tree.add_enum("", one, vec![FILE_ENUM, index], &lines);
        }
        tree
    }

    /// Where something of this name would stand: in the message that it is part of, else anywhere.
    pub(crate) fn line_of_parent(&self, name: &str) -> usize {
        let parent = name.rsplit_once('.').and_then(|(parent, _)| self.messages.get(parent));
        parent.map_or(1, |message| message.line)
    }

    fn add_message(&mut self, above: &str, message: &'a DescriptorProto, path: Vec<i32>, lines: &Lines) {
        let name = join(above, message.name());
        for (index, nested) in indexed(&message.nested_type) {
            self.add_message(&name, nested, below(&path, MESSAGE_NESTED, index), lines);
        }
        for (index, nested) in indexed(&message.enum_type) {
            self.add_enum(&name, nested, below(&path, MESSAGE_ENUM, index), lines);
        }
        let fields = indexed(&message.field)
            .map(|(index, field)| (field.number(), (field, lines.at(&below(&path, MESSAGE_FIELD, index)))))
            .collect();
        self.messages.insert(name, Message { proto: message, line: lines.at(&path), fields });
    }

    fn add_enum(&mut self, above: &str, one: &'a EnumDescriptorProto, path: Vec<i32>, lines: &Lines) {
        let value_lines =
            indexed(&one.value).map(|(index, _)| lines.at(&below(&path, ENUM_VALUE, index))).collect();
        self.enums.insert(join(above, one.name()), Enum { proto: one, line: lines.at(&path), value_lines });
    }
}

/// Line by path; empty for a file that was stored without its places.
struct Lines(BTreeMap<Vec<i32>, usize>);

impl Lines {
    fn of(info: Option<&SourceCodeInfo>) -> Self {
        let places = info.into_iter().flat_map(|info| &info.location);
        let line = |span: &[i32]| {
            span.first().and_then(|&line| usize::try_from(line).ok()).map_or(1, |line| line + 1)
        };
        Self(places.map(|place| (place.path.clone(), line(&place.span))).collect())
    }

    fn at(&self, path: &[i32]) -> usize {
        self.0.get(path).copied().unwrap_or(1)
    }
}

fn indexed<T>(list: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(list)
}

fn below(path: &[i32], part: i32, index: i32) -> Vec<i32> {
    [path, &[part, index]].concat()
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

//! Whether a `.proto` file may take the place of a released one: things are only ever added. Owns the rules of SPEC.md, [S-EVO-2], as far as
//! descriptors can show them; does not know where releases lie.
//!
//! What is compared is what two programs of different age have to agree upon, and what their authors' sources name: numbers, types, labels,
//! names, the oneof of a field, the numbers that were set aside. Comments, order and options may change.

use std::collections::BTreeMap;

use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, field_descriptor_proto,
};

use crate::tree::{Enum, Message, Tree};

/// What is wrong, and the line of the new file that shows it best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Everything in `new` that a program built from `old` would stumble over.
pub(crate) fn breaks(old: &FileDescriptorProto, new: &FileDescriptorProto) -> Vec<Finding> {
    let (before, now) = (Tree::of(old), Tree::of(new));
    let mut findings = Vec::new();
    if old.package() != new.package() || old.syntax() != new.syntax() {
        let what = format!(
            "package {} in {} has become package {} in {}: that is another protocol",
            old.package(),
            old.syntax(),
            new.package(),
            new.syntax()
        );
        findings.push(Finding { line: 1, what });
    }
    for (name, message) in &before.messages {
        match now.messages.get(name) {
            Some(other) => in_message(name, message, other, &mut findings),
            None => findings.push(gone(now.line_of_parent(name), "message", name)),
        }
    }
    for (name, one) in &before.enums {
        match now.enums.get(name) {
            Some(other) => in_enum(name, one, other, &mut findings),
            None => findings.push(gone(now.line_of_parent(name), "enum", name)),
        }
    }
    findings
}

/// What `new` must not have, whatever was before it.
pub(crate) fn bad_manners(new: &FileDescriptorProto) -> Vec<Finding> {
    let tree = Tree::of(new);
    let mut findings = Vec::new();
    for (name, message) in &tree.messages {
        for (field, line) in message.fields.values() {
            if field.proto3_optional() {
                let what = format!(
                    "field {name}.{} is `optional`: protobuf-c of Debian 12 rejects it; say what 0 or empty means instead",
                    field.name()
                );
                findings.push(Finding { line: *line, what });
            }
        }
    }
    for (name, one) in &tree.enums {
        if !one.proto.value.iter().any(|value| value.number() == 0 && value.name().ends_with("_UNSPECIFIED"))
        {
            let what = format!(
                "enum {name} has no value *_UNSPECIFIED = 0, by which old programs read what they do not know"
            );
            findings.push(Finding { line: one.line, what });
        }
    }
    findings
}

/// What is in `new` and was not in `old`: names, each with what it is and its line.
pub(crate) fn additions(old: &FileDescriptorProto, new: &FileDescriptorProto) -> Vec<(usize, String)> {
    let (before, now) = (Tree::of(old), Tree::of(new));
    let mut added = Vec::new();
    for (name, message) in &now.messages {
        let known = before.messages.get(name);
        if known.is_none() {
            added.push((message.line, last(name).to_owned()));
        }
        for (field, line) in message.fields.values() {
            if known.is_none_or(|known| known.field_named(field.name()).is_none()) && !is_a_body(field) {
                added.push((*line, field.name().to_owned()));
            }
        }
    }
    for (name, one) in &now.enums {
        for (value, line) in one.proto.value.iter().zip(&one.value_lines) {
            let is_known = before
                .enums
                .get(name)
                .is_some_and(|known| known.proto.value.iter().any(|other| other.name() == value.name()));
            if !is_known && value.number() != 0 {
                added.push((*line, value.name().to_owned()));
            }
        }
    }
    added
}

/// A field of the oneof `body` is only the number of its message, which is spoken of by its own name.
fn is_a_body(field: &FieldDescriptorProto) -> bool {
    field.oneof_index.is_some() && field.r#type() == field_descriptor_proto::Type::Message
}

fn in_message(name: &str, old: &Message<'_>, new: &Message<'_>, findings: &mut Vec<Finding>) {
    for (number, (field, _)) in &old.fields {
        match new.fields.get(number) {
            Some((other, line)) => {
                let changes = field_changes((old.proto, field), (new.proto, other));
                findings.extend(changes.into_iter().map(|change| Finding {
                    line: *line,
                    what: format!("field {name}.{} = {number} {change}", field.name()),
                }));
            }
            None => findings.push(match new.field_named(field.name()) {
                Some((other, line)) => Finding {
                    line: *line,
                    what: format!(
                        "field {name}.{} had number {number}, now it has {}",
                        field.name(),
                        other.number()
                    ),
                },
                None => gone(new.line, "field", &format!("{name}.{} = {number}", field.name())),
            }),
        }
    }
    let kept = |number: i32| {
        new.proto.reserved_range.iter().any(|range| (range.start()..range.end()).contains(&number))
            || new.fields.contains_key(&number)
    };
    let set_aside = old.proto.reserved_range.iter().flat_map(|range| range.start()..range.end());
    let free: Vec<i32> = set_aside.filter(|&number| !kept(number)).collect();
    if let (Some(first), Some(last)) = (free.first(), free.last()) {
        let what =
            format!("message {name} no longer reserves numbers {first} to {last}, and no field has them");
        findings.push(Finding { line: new.line, what });
    }
    for word in &old.proto.reserved_name {
        if !new.proto.reserved_name.contains(word) && new.field_named(word).is_none() {
            let what = format!("message {name} no longer reserves the name {word}");
            findings.push(Finding { line: new.line, what });
        }
    }
}

/// How a field of the same number differs from what it was.
fn field_changes(
    (old_message, old): (&DescriptorProto, &FieldDescriptorProto),
    (new_message, new): (&DescriptorProto, &FieldDescriptorProto),
) -> Vec<String> {
    let mut changes = Vec::new();
    if old.name() != new.name() {
        changes.push(format!("is now called {}: sources that name it would not build", new.name()));
    }
    let (was, is) = (type_of(old), type_of(new));
    if was != is {
        changes.push(format!("was {was}, now it is {is}"));
    }
    if old.label() != new.label() {
        let word = |field: &FieldDescriptorProto| match field.label() {
            field_descriptor_proto::Label::Repeated => "repeated",
            field_descriptor_proto::Label::Optional | field_descriptor_proto::Label::Required => "single",
        };
        changes.push(format!("was {}, now it is {}", word(old), word(new)));
    }
    let (was, is) = (oneof_of(old_message, old), oneof_of(new_message, new));
    if was != is {
        let word = |name: Option<&str>| {
            name.map_or_else(|| "in no oneof".to_owned(), |name| format!("in oneof {name}"))
        };
        changes.push(format!("stood {}, now it stands {}", word(was), word(is)));
    }
    changes
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match &field.type_name {
        Some(name) => last(name).to_owned(),
        None => field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn oneof_of<'a>(message: &'a DescriptorProto, field: &FieldDescriptorProto) -> Option<&'a str> {
    let index = usize::try_from(field.oneof_index?).ok()?;
    message.oneof_decl.get(index).map(|oneof| oneof.name())
}

fn in_enum(name: &str, old: &Enum<'_>, new: &Enum<'_>, findings: &mut Vec<Finding>) {
    let by_number = numbers(new.proto);
    for value in &old.proto.value {
        let (word, number) = (value.name(), value.number());
        let elsewhere = new.proto.value.iter().position(|other| other.name() == word);
        match (by_number.get(&number), elsewhere) {
            (Some(names), _) if names.contains(&word) => {}
            (_, Some(index)) => findings.push(Finding {
                line: new.value_lines[index],
                what: format!(
                    "value {name}.{word} had number {number}, now it has {}",
                    new.proto.value[index].number()
                ),
            }),
            (Some(names), None) => {
                let at = new.proto.value.iter().position(|other| names.first() == Some(&other.name()));
                findings.push(Finding {
                    line: at.map_or(new.line, |index| new.value_lines[index]),
                    what: format!("value {name}.{word} = {number} is now called {}", names.join(", ")),
                });
            }
            (None, None) => findings.push(gone(new.line, "value", &format!("{name}.{word} = {number}"))),
        }
    }
}

fn numbers(one: &EnumDescriptorProto) -> BTreeMap<i32, Vec<&str>> {
    let mut by_number: BTreeMap<i32, Vec<&str>> = BTreeMap::new();
    for value in &one.value {
        by_number.entry(value.number()).or_default().push(value.name());
    }
    by_number
}

fn gone(line: usize, kind: &str, name: &str) -> Finding {
    Finding { line, what: format!("{kind} {name} is gone") }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile_text;

    const OLD: &str = "\
message Frame {
  uint32 rid = 1;
  oneof body {
    Ping ping = 2;
    Log log = 3;
  }
  string word = 4;
  repeated string words = 5;
  reserved 40 to 69;
  reserved \"secret\";
}
message Ping { uint64 nonce = 1; }
message Log {
  enum Level {
    LEVEL_UNSPECIFIED = 0;
    DEBUG = 1;
    INFO = 2;
  }
  Level level = 1;
}
enum Kind {
  KIND_UNSPECIFIED = 0;
  STREAM = 1;
}
";

    #[test]
    fn the_same_file_breaks_nothing_and_adds_nothing() {
        assert_eq!(found("", ""), [""; 0]);
        assert_eq!(additions(&file(OLD), &file(OLD)), []);
    }

    #[test]
    fn comments_and_order_may_change() {
        assert_eq!(found("  uint32 rid = 1;\n", "  // Who asks.\n"), ["field Frame.rid = 1 is gone"]);
        assert_eq!(found("  uint32 rid = 1;\n", "  // Who asks.\n  uint32 rid = 1;\n"), [""; 0]);
        let turned = "  repeated string words = 5;\n  string word = 4;\n";
        assert_eq!(found("  string word = 4;\n  repeated string words = 5;\n", turned), [""; 0]);
    }

    #[test]
    fn what_is_added_breaks_nothing_and_is_told() {
        let new = OLD
            .replace("  string word = 4;\n", "  string word = 4;\n  uint32 more = 6;\n")
            .replace("Log log = 3;", "Log log = 3;\n    Pong pong = 7;\n    uint32 short = 8;")
            .replace("INFO = 2;", "INFO = 2;\n    WARN = 3;")
            + "message Pong { uint64 again = 1; }\nenum Trust { TRUST_UNSPECIFIED = 0; ANYONE = 1; }\n";
        assert_eq!(breaks(&file(OLD), &file(&new)), []);
        let mut added: Vec<String> =
            additions(&file(OLD), &file(&new)).into_iter().map(|(_, name)| name).collect();
        added.sort();
        assert_eq!(added, ["ANYONE", "Pong", "WARN", "again", "more", "short"]);
    }

    #[test]
    fn a_field_that_is_removed_renumbered_retyped_or_renamed_is_found() {
        assert_eq!(found("  string word = 4;\n", ""), ["field Frame.word = 4 is gone"]);
        assert_eq!(found("  string word = 4;\n", "  reserved 4;\n"), ["field Frame.word = 4 is gone"]);
        assert_eq!(found("word = 4", "word = 6"), ["field Frame.word had number 4, now it has 6"]);
        assert_eq!(
            found("string word = 4", "bytes word = 4"),
            ["field Frame.word = 4 was string, now it is bytes"]
        );
        assert_eq!(found("Level level", "Kind level"), ["field Log.level = 1 was Level, now it is Kind"]);
        let renamed = "field Frame.word = 4 is now called text: sources that name it would not build";
        assert_eq!(found("word = 4", "text = 4"), [renamed]);
    }

    #[test]
    fn a_number_that_is_given_to_another_field_is_found() {
        let swapped = found("  string word = 4;\n", "  string word = 6;\n  uint64 other = 4;\n");
        assert!(swapped.iter().any(|what| what.contains("is now called other")), "{swapped:?}");
        assert!(swapped.iter().any(|what| what.contains("was string, now it is uint64")), "{swapped:?}");
    }

    #[test]
    fn a_label_that_changes_is_found_both_ways() {
        assert_eq!(
            found("string word =", "repeated string word ="),
            ["field Frame.word = 4 was single, now it is repeated"]
        );
        assert_eq!(
            found("repeated string words", "string words"),
            ["field Frame.words = 5 was repeated, now it is single"]
        );
    }

    #[test]
    fn a_field_that_moves_into_or_out_of_a_oneof_is_found() {
        let into =
            found("    Log log = 3;\n  }\n  string word = 4;", "    Log log = 3;\n    string word = 4;\n  }");
        assert_eq!(into, ["field Frame.word = 4 stood in no oneof, now it stands in oneof body"]);
        let out = found("    Log log = 3;\n  }", "  }\n  Log log = 3;");
        assert_eq!(out, ["field Frame.log = 3 stood in oneof body, now it stands in no oneof"]);
        assert_eq!(found("oneof body", "oneof content").len(), 2);
    }

    #[test]
    fn a_message_that_is_removed_renamed_or_moved_is_found() {
        assert!(found_in(&OLD.replace("Ping", "Knock")).contains(&"message Ping is gone".to_owned()));
        let moved = OLD
            .replace("message Ping { uint64 nonce = 1; }\n", "")
            .replace("  string word = 4;\n", "  string word = 4;\n  message Ping { uint64 nonce = 1; }\n");
        assert_eq!(found_in(&moved), ["message Ping is gone"]);
    }

    #[test]
    fn an_enum_that_loses_renumbers_or_renames_a_value_is_found() {
        assert_eq!(found("    INFO = 2;\n", ""), ["value Log.Level.INFO = 2 is gone"]);
        assert_eq!(found("INFO = 2", "INFO = 3"), ["value Log.Level.INFO had number 2, now it has 3"]);
        assert_eq!(found("STREAM = 1", "PIPE = 1"), ["value Kind.STREAM = 1 is now called PIPE"]);
        let moved = "enum Kind {\n  KIND_UNSPECIFIED = 0;\n  STREAM = 1;\n}\n";
        assert_eq!(found(moved, ""), ["enum Kind is gone"]);
        let other = "    INFO = 1;\n    DEBUG = 2;\n";
        assert_eq!(found("    DEBUG = 1;\n    INFO = 2;\n", other).len(), 2);
    }

    #[test]
    fn a_reserved_number_may_be_given_to_a_field_but_not_be_forgotten() {
        assert_eq!(found("reserved 40 to 69;", "reserved 41 to 69;\n  Ping ask = 40;"), [""; 0]);
        let forgotten = "message Frame no longer reserves numbers 60 to 69, and no field has them";
        assert_eq!(found("reserved 40 to 69;", "reserved 40 to 59;"), [forgotten]);
        assert_eq!(
            found("  reserved \"secret\";\n", ""),
            ["message Frame no longer reserves the name secret"]
        );
    }

    #[test]
    fn another_package_is_another_protocol() {
        let mut new = file(OLD);
        new.package = Some("p2pos.plugin.v2".to_owned());
        assert_eq!(breaks(&file(OLD), &new).len(), 1);
    }

    #[test]
    fn optional_fields_and_enums_without_a_zero_to_fall_back_on_are_bad_manners() {
        let new =
            file(&(OLD.replace("  string word =", "  optional string word =") + "enum Bad { ZERO = 0; }\n"));
        let what: Vec<String> = bad_manners(&new).into_iter().map(|finding| finding.what).collect();
        assert_eq!(what.len(), 2, "{what:?}");
        assert!(what[0].contains("Frame.word") && what[1].contains("enum Bad"));
        assert_eq!(bad_manners(&file(OLD)), []);
    }

    #[test]
    fn a_finding_names_the_line_where_somebody_has_to_look() {
        let findings = breaks(&file(OLD), &file(&OLD.replace("word = 4", "text = 4")));
        // Two lines stand before the messages.
        assert_eq!(findings[0].line, 9);
        let gone = breaks(&file(OLD), &file(&OLD.replace("    INFO = 2;\n", "")));
        assert_eq!(gone[0].line, 16);
    }

    fn found(old: &str, new: &str) -> Vec<String> {
        assert!(OLD.contains(old));
        found_in(&OLD.replacen(old, new, 1))
    }

    fn found_in(new: &str) -> Vec<String> {
        breaks(&file(OLD), &file(new)).into_iter().map(|finding| finding.what).collect()
    }

    fn file(text: &str) -> FileDescriptorProto {
        compile_text("x.proto", &format!("syntax = \"proto3\";\npackage p2pos.plugin.v1;\n{text}")).unwrap()
    }
}

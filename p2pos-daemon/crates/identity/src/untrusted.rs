//! Text from strangers, made harmless for terminals and logs. Owns the escaping, and nothing else.
//!
//! A petname from a backup, a plugin's log line or a peer's refusal text may carry terminal commands, line breaks that
//! forge a second log line, or marks that turn the reading direction, so that a name looks like another one. Whatever
//! comes from outside is shown through [`Untrusted`]: harmless characters pass unchanged, all others become `\u{..}`.
//! The price: joiners that some scripts and composed emoji need are invisible too, and are shown escaped.
//!
//! Refuses to know: HTML, and whether a name lies by looking similar (a petname is the user's own choice; DESIGN 8).

use std::fmt::{self, Write};

/// Shows a text with every control, direction-changing or invisible character escaped. Works with width and `{}`.
///
/// ```
/// use p2pos_identity::Untrusted;
/// assert_eq!(Untrusted("bo\u{1b}[2J").to_string(), "bo\\u{1b}[2J");
/// ```
#[derive(Clone, Copy)]
pub struct Untrusted<'a>(pub &'a str);

impl Untrusted<'_> {
    /// Tells whether a character may be shown as it is.
    #[must_use]
    pub fn is_harmless(c: char) -> bool {
        !(c.is_control() || is_format(c))
    }
}

/// Unicode general category Cf and its neighbours in effect: characters that draw nothing and change how others look.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        // Zero width, direction marks, line and paragraph separators, embeddings and overrides, isolates.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        // Tags: a whole hidden alphabet.
        | '\u{e0000}'..='\u{e0fff}'
        // Private use: a terminal may draw anything there.
        | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
}

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.chars().all(Self::is_harmless) {
            return f.pad(self.0);
        }
        let mut escaped = String::with_capacity(self.0.len() + 16);
        for c in self.0.chars() {
            if Self::is_harmless(c) {
                escaped.push(c);
            } else {
                write!(escaped, "\\u{{{:x}}}", u32::from(c))?;
            }
        }
        f.pad(&escaped)
    }
}

/// The same as Display, in quotes.
impl fmt::Debug for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_pass_unchanged() {
        for name in ["bo", "Zoë van der Berg", "小明", "مريم", "Ольга", "🦦 otter", "e\u{301}"]
        {
            assert_eq!(Untrusted(name).to_string(), name);
        }
    }

    #[test]
    fn terminal_commands_line_breaks_and_direction_marks_are_escaped() {
        for (hostile, shown) in [
            ("\u{1b}[31mroot", "\\u{1b}[31mroot"),
            ("a\u{9b}2Jb", "a\\u{9b}2Jb"),
            ("ok\nERROR disk", "ok\\u{a}ERROR disk"),
            ("a\rb\tc\u{8}", "a\\u{d}b\\u{9}c\\u{8}"),
            ("gpj\u{202e}exe", "gpj\\u{202e}exe"),
            ("bo\u{200b}", "bo\\u{200b}"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("bo\u{e0041}", "bo\\u{e0041}"),
        ] {
            assert_eq!(Untrusted(hostile).to_string(), shown);
        }
    }

    #[test]
    fn width_counts_in_the_shown_form() {
        assert_eq!(format!("{:<6}|", Untrusted("bo")), "bo    |");
        assert_eq!(format!("{:<8}|", Untrusted("a\u{1b}")), "a\\u{1b} |");
        assert_eq!(format!("{:?}", Untrusted("a\nb")), "\"a\\u{a}b\"");
    }
}

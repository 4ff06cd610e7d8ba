//! Blanks out comments and literals of Rust source, so that other checks find words only where they are code. Knows just enough
//! of Rust's lexical structure for that (Rust Reference, chapters "Comments" and "Tokens"); does not parse.

/// The same text with every character of comments, strings and character literals turned into a space. Lines stay where they are.
pub(crate) fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_end(&text, at);
        match end {
            Some(end) => {
                out.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends, or `None` if code goes on here.
fn literal_end(text: &[char], at: usize) -> Option<usize> {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => Some(find(text, at, '\n')),
        '/' if next == Some('*') => Some(block_comment_end(text, at)),
        '"' => Some(string_end(text, at + 1)),
        'r' | 'b' | 'c' if !is_word_before(text, at) => prefixed_end(text, at),
        '\'' => char_end(text, at),
        _ => None,
    }
}

fn find(text: &[char], from: usize, what: char) -> usize {
    (from..text.len()).find(|&at| text[at] == what).unwrap_or(text.len())
}

fn is_word_before(text: &[char], at: usize) -> bool {
    at.checked_sub(1).is_some_and(|before| text[before].is_alphanumeric() || text[before] == '_')
}

/// Block comments nest.
fn block_comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn string_end(text: &[char], mut at: usize) -> usize {
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// `r"..."`, `r#"..."#`, `b"..."`, `br"..."`, `c"..."`, `b'x'`; anything else is an ordinary word.
fn prefixed_end(text: &[char], at: usize) -> Option<usize> {
    let mut after = at + 1;
    let is_raw = text[at] == 'r' || text.get(after) == Some(&'r');
    if text[at] != 'r' && is_raw {
        after += 1;
    }
    if text[at] == 'b' && text.get(after) == Some(&'\'') {
        return char_end(text, after);
    }
    let hashes = text[after..].iter().take_while(|&&c| c == '#').count();
    if text.get(after + hashes) != Some(&'"') || (hashes > 0 && !is_raw) {
        return None;
    }
    let body = after + hashes + 1;
    if !is_raw {
        return Some(string_end(text, body));
    }
    let is_end = |quote: usize| {
        text[quote] == '"' && text[quote + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    Some((body..text.len()).find(|&quote| is_end(quote)).map_or(text.len(), |quote| quote + 1 + hashes))
}

/// `'x'` and `'\n'` are literals, `'a` is a lifetime.
fn char_end(text: &[char], at: usize) -> Option<usize> {
    match text.get(at + 1)? {
        '\\' => Some((find(text, at + 3, '\'') + 1).min(text.len())),
        _ if text.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_vanish_and_lines_stay() {
        let blanked = format!("a {}\nc {}\n{} g", " ".repeat(4), " ".repeat(14), " ".repeat(3));
        assert_eq!(code_only("a // b\nc /* d /* e */ f\n */ g"), blanked);
    }

    #[test]
    fn strings_of_every_kind_vanish() {
        for literal in [
            r#""todo!()""#,
            r#""\"todo!()""#,
            "r\"todo!()\"",
            "r#\"todo!()\"\"#",
            "b\"todo!()\"",
            "br#\"todo!()\"#",
            "c\"todo!()\"",
        ] {
            let code = code_only(&format!("let a = {literal}; end"));
            assert!(!code.contains("todo") && code.ends_with("; end"), "{literal} became {code:?}");
        }
    }

    #[test]
    fn a_lifetime_is_no_literal_but_a_quote_is() {
        assert_eq!(code_only("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert_eq!(
            code_only("match c { '\"' => 1, '\\'' => 2, b'\"' => 3 }"),
            "match c {     => 1,      => 2,      => 3 }"
        );
    }

    #[test]
    fn words_that_begin_like_a_prefix_stay() {
        assert_eq!(code_only("for bar in crate r#type"), "for bar in crate r#type");
    }

    #[test]
    fn text_that_ends_within_a_literal_is_no_panic() {
        for open in ["\"abc", "r#\"abc", "/* abc", "'\\", "b'", "\"\\", "r", "b", "'"] {
            let _code: String = code_only(open);
        }
    }
}

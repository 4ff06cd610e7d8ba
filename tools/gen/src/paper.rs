//! A message that nobody explains is no part of a protocol: what came after a release must be named in SPEC.md, in its words and not only
//! in the copy of the `.proto` file at its end.

use crate::compatible::Finding;

/// The chapter that is the copy: naming something there says nothing about it.
const COPY: &str = "\n## 15 Every field";

/// Those additions that the words before the copy do not name.
pub(crate) fn unspoken(additions: &[(usize, String)], paper: &str) -> Vec<Finding> {
    let prose = paper.split_once(COPY).map_or(paper, |(prose, _)| prose);
    let words: Vec<&str> = prose.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
    let silent = additions.iter().filter(|(_, name)| !words.contains(&name.as_str()));
    silent
        .map(|(line, name)| Finding {
            line: *line,
            what: format!("{name} is new, and SPEC.md says nothing about it before chapter 15: write what it means, there and in the same change"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: &str = "# Spec\n\nPing is asked, `Pong.nonce` answers.\n\n## 15 Every field\n\nmessage Later { uint32 when = 1; }\n";

    #[test]
    fn what_is_named_only_in_the_copy_is_unspoken() {
        let names: Vec<String> = unspoken(&added(&["Ping", "nonce", "Later", "Pin"]), PAPER)
            .into_iter()
            .map(|finding| finding.what.split(' ').next().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["Later", "Pin"]);
    }

    #[test]
    fn a_paper_without_the_copy_is_all_words() {
        assert!(unspoken(&added(&["Ping"]), "Ping").is_empty());
    }

    fn added(names: &[&str]) -> Vec<(usize, String)> {
        names.iter().map(|name| (1, (*name).to_owned())).collect()
    }
}

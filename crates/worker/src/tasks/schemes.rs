//! Tag schemes of token classifiers, derived from the labels: IOB1, IOB2, IOBES and BILOU.

/// The tag that a label stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    /// The whole label.
    pub(super) label: String,
    /// Neighbouring tokens of one entity have the same kind.
    pub(super) kind: String,
    /// The entity's name.
    pub(super) name: String,
    /// Whether the token always begins an entity.
    pub(super) begins: bool,
    /// Whether the token always ends the entity.
    pub(super) ends: bool,
    /// Whether the tag marks a token after the first of an entity.
    pub(super) continues: bool,
}

/// The tags of a model, by class.
#[derive(Debug, Clone)]
pub(super) struct Tags(Vec<Tag>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// `B-` and `I-`: IOB1 and IOB2 are treated alike, an `I-` after another kind begins an entity.
    Iob,
    /// `S-` is an entity of one token, `E-` the last of several.
    Iobes,
    /// The same with `U-` and `L-`.
    Bilou,
}

impl Tags {
    pub(super) fn new(labels: &[String]) -> Self {
        let some = |prefix: &str| labels.iter().any(|label| label.starts_with(prefix));
        let scheme = match (some("S-") && some("E-"), some("U-") && some("L-")) {
            (true, _) => Scheme::Iobes,
            (_, true) => Scheme::Bilou,
            _ => Scheme::Iob,
        };
        Self(labels.iter().map(|label| Tag::new(label, scheme)).collect())
    }

    /// The tag of a class; `None` if the model has more classes than labels.
    pub(super) fn get(&self, class: usize) -> Option<&Tag> {
        self.0.get(class)
    }
}

impl Tag {
    /// Source: `get_tag` and `group_sub_entities` in transformers' token classification pipeline, which supports only
    /// `B-` and `I-`.
    fn new(label: &str, scheme: Scheme) -> Self {
        let (prefix, rest) = label.split_once('-').unwrap_or(("", label));
        let (begins, ends, known) = match (scheme, prefix) {
            (_, "B") => (true, false, true),
            (_, "I") => (false, false, true),
            (Scheme::Iobes, "S") | (Scheme::Bilou, "U") => (true, true, true),
            (Scheme::Iobes, "E") | (Scheme::Bilou, "L") => (false, true, true),
            _ => (false, false, false),
        };
        Self {
            label: label.to_owned(),
            kind: if known { rest } else { label }.to_owned(),
            name: rest.to_owned(),
            begins,
            ends,
            continues: known && !begins,
        }
    }

    pub(super) fn is_outside(&self) -> bool {
        self.label == "O"
    }

    /// Whether a token with this tag continues the entity of the token before it.
    pub(super) fn follows(&self, before: &Self) -> bool {
        self.kind == before.kind && !self.begins && !before.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these tokens belongs to the entity of the one before it.
    fn joined(labels: &[&str], tokens: &[&str]) -> Vec<bool> {
        let names: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let tags = Tags::new(&names);
        let tag = |label: &str| tags.get(names.iter().position(|name| name == label).unwrap()).unwrap();
        tokens.windows(2).map(|pair| tag(pair[1]).follows(tag(pair[0]))).collect()
    }

    #[test]
    fn each_scheme_begins_and_ends_entities_by_its_own_rules() {
        let iob = ["O", "B-PER", "I-PER", "I-LOC"];
        assert_eq!(joined(&iob, &["B-PER", "I-PER", "B-PER", "I-LOC", "O"]), [true, false, false, false]);
        assert_eq!(joined(&iob, &["I-PER", "I-PER"]), [true]);
        let iobes = ["O", "B-PER", "I-PER", "E-PER", "S-PER"];
        assert_eq!(joined(&iobes, &["B-PER", "I-PER", "E-PER", "S-PER", "S-PER"]), [true, true, false, false]);
        let bilou = ["O", "B-PER", "I-PER", "L-PER", "U-PER"];
        assert_eq!(joined(&bilou, &["B-PER", "L-PER", "I-PER", "U-PER"]), [true, false, false]);
    }

    #[test]
    fn labels_outside_a_scheme_are_treated_as_in_transformers() {
        let tag = Tag::new("GPE-LOC", Scheme::Iob);
        assert_eq!((tag.kind.as_str(), tag.name.as_str(), tag.begins, tag.continues), ("GPE-LOC", "LOC", false, false));
        let plain = Tag::new("PER", Scheme::Iob);
        assert!(plain.follows(&plain.clone()) && !plain.is_outside());
        assert!(!Tag::new("S-PER", Scheme::Iob).begins);
    }
}

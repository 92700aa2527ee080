//! How full-text search compares words: text and query are folded before they are split into words.

use unicode_normalization::{UnicodeNormalization, char::decompose_compatible};

/// The name of a full-text index over text that [`fold`] folded. The number increases with every change of [`fold`]: an
/// index of another name holds other words and must be rebuilt.
pub const TEXT_INDEX: &str = "text_words_2";

/// The name of a full-text index from before texts were folded: Lance's own folding, words of up to 40 bytes.
pub const UNFOLDED_TEXT_INDEX: &str = "text_idx";

/// The character that replaces every apostrophe.
const APOSTROPHE: char = '\'';

/// The digits zero of scripts with digits of their own; the digits one to nine follow each of them.
const ZEROS: [u32; 21] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6, 0x0e50,
    0x0ed0, 0x0f20, 0x1040, 0x17e0, 0x1810, 0x1946, 0x19d0,
];

/// Folds a text to the form in which words are compared: independent of case, accents and composition.
///
/// - Case, width, ligatures and other forms of a letter become one (NFKD, lower case). Decomposed letters are composed
///   again where they are different letters: Hangul, `が` and `か`, Cyrillic `й` and `ї`.
/// - Marks that people leave out are removed: accents of Latin and Greek letters, the dots of `ё`, the stress of Cyrillic,
///   the vowel signs of Arabic, Hebrew and Syriac, soft hyphens and other invisible characters. Vowel signs of the scripts
///   of India and South-East Asia stay: there they are letters.
/// - Apostrophes separate words (`l'homme`: `l`, `homme`), except in Cyrillic and Hebrew, where they are part of a word
///   (`сім'я`). `.`, `:` and `_` separate words too, except `.` between digits.
#[must_use]
pub fn fold(text: &str) -> String {
    separate_words(&normalize(text))
}

/// Folds a query like [`fold`], and drops single letters that an apostrophe separates from a word: `l'homme` searches for
/// `homme` and not for every `l`.
#[must_use]
pub fn fold_query(query: &str) -> String {
    let query = normalize(query);
    let words = query.split_whitespace().map(|word| {
        let parts: Vec<&str> = word.split(APOSTROPHE).collect();
        let letters = |part: &str| part.chars().filter(|letter| letter.is_alphanumeric()).collect::<Vec<_>>();
        let is_word = |part: &&str| letters(part).len() > 1;
        let is_kept = |part: &&&str| !matches!(letters(part)[..], [letter] if letter.is_ascii_alphabetic());
        if parts.iter().any(is_word) { parts.iter().filter(is_kept).copied().collect() } else { parts }.join("'")
    });
    separate_words(&words.collect::<Vec<_>>().join(" "))
}

/// The text with one form for each letter, and with its apostrophes.
fn normalize(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase().replace('`', "'");
    }
    let mut decomposed = String::with_capacity(text.len());
    for character in text.chars() {
        decompose(character, &mut decomposed);
    }
    let mut folded = String::with_capacity(decomposed.len());
    let mut base = ' ';
    for character in decomposed.nfd() {
        if is_removed(character, base) {
            continue;
        }
        if !unicode_normalization::char::is_combining_mark(character) {
            base = character;
        }
        push_letter(character, &mut folded);
    }
    folded.nfc().collect()
}

/// Appends the character in lower case and in its canonical form.
fn decompose(character: char, decomposed: &mut String) {
    match character {
        // Soft hyphens, joiners, directions, variants, the lengthening of Arabic, the punctuation inside Armenian words.
        '\u{ad}'
        | '\u{61c}'
        | '\u{640}'
        | '\u{55b}'..='\u{55c}'
        | '\u{55e}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200c}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{e0100}'..='\u{e01ef}' => {}
        // The zero-width space separates words of scripts without spaces.
        '\u{200b}' => decomposed.push(' '),
        '`'
        | '´'
        | '\u{2b9}'..='\u{2bf}'
        | '\u{2c8}'
        | '\u{55a}'
        | '\u{5f3}'
        | '\u{2018}'..='\u{201b}'
        | '\u{2032}'
        | '\u{2035}'
        | '\u{a78b}'
        | '\u{a78c}'
        | '\u{ff07}'
        | '\u{ff40}' => decomposed.push(APOSTROPHE),
        '\u{5f4}' | '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ff02}' => decomposed.push('"'),
        // The dictionaries of Thai and Lao contain these as one character.
        '\u{e33}' | '\u{eb3}' | '\u{edc}' | '\u{edd}' => decomposed.push(character),
        '\u{e32}' if decomposed.ends_with('\u{e4d}') => {
            decomposed.pop();
            decomposed.push('\u{e33}');
        }
        '\u{eb2}' if decomposed.ends_with('\u{ecd}') => {
            decomposed.pop();
            decomposed.push('\u{eb3}');
        }
        _ => {
            let start = decomposed.len();
            decompose_compatible(character, |part| decomposed.extend(part.to_lowercase()));
            // `word¹` and `Name™` are the words `word` and `Name`, followed by another word.
            let is_sign =
                !character.is_alphabetic() && !matches!(character, '\u{ff10}'..='\u{ff19}' | '\u{1d7ce}'..='\u{1d7ff}');
            let became_word = |part: char| part != character && part.is_alphanumeric();
            if is_sign && decomposed[start..].contains(became_word) {
                decomposed.insert(start, ' ');
                decomposed.push(' ');
            }
        }
    }
}

/// Whether a mark on this letter is removed: marks that people leave out, or that only indicate the pronunciation.
fn is_removed(mark: char, base: char) -> bool {
    match mark {
        '\u{300}'..='\u{36f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe20}'..='\u{fe2f}' => !is_cyrillic(base) || !makes_cyrillic_letter(mark, base),
        // An alef with hamza is the same letter; a waw or yeh with hamza is another one.
        '\u{654}' => base == 'ا',
        '\u{483}'..='\u{489}'
        | '\u{591}'..='\u{5bd}'
        | '\u{5bf}'
        | '\u{5c1}'..='\u{5c2}'
        | '\u{5c4}'..='\u{5c5}'
        | '\u{5c7}'
        | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}'
        | '\u{670}'
        | '\u{6d6}'..='\u{6dc}'
        | '\u{6df}'..='\u{6e4}'
        | '\u{6e7}'..='\u{6e8}'
        | '\u{6ea}'..='\u{6ed}'
        | '\u{711}'
        | '\u{730}'..='\u{74a}'
        | '\u{8ca}'..='\u{8e1}'
        | '\u{8e3}'..='\u{8ff}' => true,
        _ => false,
    }
}

/// Breve, diaeresis, macron and double acute make other letters (`й`, `ї`, `ӣ`, `ӳ`), and so does an acute in Macedonian
/// `ѓ` and `ќ`; elsewhere an acute marks the stress. `ё` is mostly written `е`.
fn makes_cyrillic_letter(mark: char, base: char) -> bool {
    match mark {
        '\u{308}' => base != 'е',
        '\u{301}' => matches!(base, 'г' | 'к'),
        '\u{304}' | '\u{306}' | '\u{30b}' => true,
        _ => false,
    }
}

fn is_cyrillic(letter: char) -> bool {
    matches!(letter, '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{a640}'..='\u{a69f}')
}

/// Appends a letter, or the usual replacement for one that is often not available.
fn push_letter(letter: char, folded: &mut String) {
    let replacement = match letter {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'þ' => "th",
        'ð' | 'đ' => "d",
        'ø' => "o",
        'ł' => "l",
        'ħ' => "h",
        'ŧ' => "t",
        'ı' => "i",
        'ŋ' => "n",
        'ς' => "σ",
        'ٱ' => "ا",
        'ى' | 'ی' => "ي",
        'ک' => "ك",
        // Malayalam wrote these with a joiner before they had characters of their own.
        'ൺ' => "ണ്",
        'ൻ' => "ന്",
        'ർ' => "ര്",
        'ൽ' => "ല്",
        'ൾ' => "ള്",
        'ൿ' => "ക്",
        _ => return folded.push(digit(letter).unwrap_or(letter)),
    };
    folded.push_str(replacement);
}

fn digit(character: char) -> Option<char> {
    let code = u32::from(character);
    let value = ZEROS.iter().find_map(|zero| code.checked_sub(*zero).filter(|value| *value < 10))?;
    char::from_digit(value, 10)
}

/// Inserts spaces where people see the end of a word and ICU does not.
fn separate_words(text: &str) -> String {
    let mut separated = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let (before, after) = (separated.chars().next_back().unwrap_or(' '), characters.peek().copied().unwrap_or(' '));
        let between = |is: fn(char) -> bool| is(before) && is(after);
        match character {
            APOSTROPHE if between(is_cyrillic) || between(is_hebrew) => {}
            '"' if between(is_hebrew) => {}
            '·' if between(|letter| letter == 'l') => {}
            '.' if between(|digit| digit.is_ascii_digit()) => separated.push('.'),
            APOSTROPHE | '"' | '·' | '.' | ':' | '_' | '\u{55f}' | '\u{2027}' | '\u{203f}' | '\u{2040}'
            | '\u{2054}' => {
                separated.push(' ');
            }
            _ => separated.push(character),
        }
    }
    separated
}

fn is_hebrew(letter: char) -> bool {
    matches!(letter, '\u{5d0}'..='\u{5ea}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_fold_to_one() {
        for (one, other) in [
            ("Ελλάδα", "ΕΛΛΑΔΑ"),
            ("ὁδός", "ΟΔΟΣ"),
            ("İstanbul", "ISTANBUL"),
            ("ışık", "IŞIK"),
            ("Straße", "STRASSE"),
            ("Đà Nẵng", "da nang"),
            ("Élysée", "E\u{301}lyse\u{301}e"),
            ("Зелёная", "зеленая"),
            ("за\u{301}мок", "замок"),
            ("كَتَبَ", "كتب"),
            ("أحمد", "احمد"),
            ("کتابی", "كتابي"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("שָׁלוֹם", "שלום"),
            ("צה״ל", "צה\"ל"),
            ("ﾃｽﾄ ﾊﾞｽ", "テスト バス"),
            ("ＡＢＣ１２３", "abc123"),
            ("한국어", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}"),
            ("ന\u{d4d}\u{200d}", "ൻ"),
            ("น\u{e4d}\u{e32}", "นำ"),
            ("۱۳۹۹ २०२४ ๒๕๖๗", "1399 2024 2567"),
            ("Dona\u{ad}tion", "donation"),
            ("ﬁnal Ⅷ", "final viii"),
            ("col·lecció", "colleccio"),
            ("ի՞նչ", "ինչ"),
            ("сім’я", "сім'я"),
            ("сімʼя", "сім'я"),
            ("Hawaiʻi", "Hawai'i"),
            ("თბილისი", "ᲗᲑᲘᲚᲘᲡᲘ"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
    }

    #[test]
    fn different_letters_stay_different() {
        for (one, other) in [
            ("は", "ば"),
            ("мой", "мои"),
            ("їх", "іх"),
            ("ќе", "ке"),
            ("कि", "की"),
            ("क्", "क"),
            ("ที่", "ที"),
            ("رؤية", "روية"),
        ] {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
        let unchanged = "हिन्दी தமிழ் മലയാളം ภาษาไทย 한국어 ខ្មែរ မြန်မာ が й ї";
        assert_eq!(fold(unchanged), unchanged);
    }

    #[test]
    fn words_are_separated_where_people_see_it() {
        assert_eq!(fold("L'homme, qu’il"), "l homme, qu il");
        assert_eq!(fold("п'ять צה״ל"), "пять צהל");
        assert_eq!(fold("foo_bar a.b 2.0 x:y"), "foo bar a b 2.0 x y");
        assert_eq!(
            fold("word¹ Lance™ 5㎏").split_whitespace().collect::<Vec<_>>(),
            ["word", "1", "lance", "tm", "5", "kg"]
        );
        assert_eq!(fold("\"a b\""), " a b ");
        assert_eq!(fold_query("L’homme DON'T o'z сім'я l' a'b it's (l'eau)"), "homme don o z сімя l  a b it eau)");
        assert_eq!((fold(""), fold("’")), (String::new(), " ".to_owned()));
    }
}

//! How words are compared by the index of words: the text is folded before it is cut into words, and so is the query.

use unicode_normalization::{UnicodeNormalization, char::decompose_compatible};

/// The name of an index whose text was folded by [`fold`]. The number rises with every change of what [`fold`] yields: an
/// index of another name holds other words and must be rebuilt.
pub const WORDS_INDEX: &str = "text_words_2";

/// The index of words before texts were folded: Lance's own folding, words of up to 40 bytes.
pub const OLDER_WORDS_INDEX: &str = "text_idx";

/// Stands for every apostrophe.
const APOSTROPHE: char = '\'';

/// The digits nought of the scripts that write numbers with signs of their own; each is followed by its nine others.
const NOUGHTS: [u32; 21] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6, 0x0e50,
    0x0ed0, 0x0f20, 0x1040, 0x17e0, 0x1810, 0x1946, 0x19d0,
];

/// The text as its words are compared: in any case, with or without accents, composed or not.
///
/// - Case, width, ligatures and other forms of a letter are made one (NFKD, lower case), and decomposed letters are
///   composed again where what decomposes is another letter: Hangul, `が` beside `か`, Cyrillic `й` and `ї`.
/// - What people leave out is taken away: accents of Latin and Greek letters, `ё`'s dots, the stress of Cyrillic, the
///   vowel signs of Arabic, Hebrew and Syriac, soft hyphens and other invisible characters. Vowel signs of the scripts of
///   India and South-East Asia stay: there they are letters.
/// - Apostrophes part words (`l'homme`: `l`, `homme`), but are inside one in Cyrillic and Hebrew, where nothing is elided
///   (`сім'я`). `.`, `:`, `_` part words as well, except `.` between digits.
#[must_use]
pub fn fold(text: &str) -> String {
    part(&plain(text))
}

/// A query as [`fold`] yields it, without the letters that an apostrophe leaves beside a word: `l'homme` looks for `homme`
/// and not for every `l`.
#[must_use]
pub fn fold_query(query: &str) -> String {
    let query = plain(query);
    let words = query.split_whitespace().map(|word| {
        let parts: Vec<&str> = word.split(APOSTROPHE).collect();
        let letters = |part: &str| part.chars().filter(|letter| letter.is_alphanumeric()).collect::<Vec<_>>();
        let is_word = |part: &&str| letters(part).len() > 1;
        let is_left = |part: &&&str| !matches!(letters(part)[..], [letter] if letter.is_ascii_alphabetic());
        if parts.iter().any(is_word) { parts.iter().filter(is_left).copied().collect() } else { parts }.join("'")
    });
    part(&words.collect::<Vec<_>>().join(" "))
}

/// The text in one form, with its apostrophes.
fn plain(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase().replace('`', "'");
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        decompose(character, &mut plain);
    }
    let mut folded = String::with_capacity(plain.len());
    let mut base = ' ';
    for character in plain.nfd() {
        if is_left_out(character, base) {
            continue;
        }
        if !unicode_normalization::char::is_combining_mark(character) {
            base = character;
        }
        push_letter(character, &mut folded);
    }
    folded.nfc().collect()
}

/// Lower case, without the forms that mean the same letter.
fn decompose(character: char, plain: &mut String) {
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
        // Where a line may end: between words of scripts without spaces.
        '\u{200b}' => plain.push(' '),
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
        | '\u{ff40}' => plain.push(APOSTROPHE),
        '\u{5f4}' | '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ff02}' => plain.push('"'),
        // The dictionaries of Thai and Lao know these as one sign.
        '\u{e33}' | '\u{eb3}' | '\u{edc}' | '\u{edd}' => plain.push(character),
        '\u{e32}' if plain.ends_with('\u{e4d}') => {
            plain.pop();
            plain.push('\u{e33}');
        }
        '\u{eb2}' if plain.ends_with('\u{ecd}') => {
            plain.pop();
            plain.push('\u{eb3}');
        }
        _ => {
            let start = plain.len();
            decompose_compatible(character, |part| plain.extend(part.to_lowercase()));
            // `word¹` and `Name™` are the words `word` and `Name` and something else.
            let is_sign =
                !character.is_alphabetic() && !matches!(character, '\u{ff10}'..='\u{ff19}' | '\u{1d7ce}'..='\u{1d7ff}');
            let became_word = |part: char| part != character && part.is_alphanumeric();
            if is_sign && plain[start..].contains(became_word) {
                plain.insert(start, ' ');
                plain.push(' ');
            }
        }
    }
}

/// Marks that people leave out or that only say how a word sounds, by the letter they stand on.
fn is_left_out(mark: char, base: char) -> bool {
    match mark {
        '\u{300}'..='\u{36f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe20}'..='\u{fe2f}' => !is_cyrillic(base) || !makes_cyrillic_letter(mark, base),
        // Hamza makes an alef no other letter, but a waw and a yeh.
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

/// Breve, diaeresis, macron and double acute make other letters (`й`, `ї`, `ӣ`, `ӳ`), as an acute does of Macedonian `ѓ` and
/// `ќ`; elsewhere it is the stress. `ё` is mostly written `е`.
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

/// A letter, or what is written for it where it is missing.
fn push_letter(letter: char, folded: &mut String) {
    let plain = match letter {
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
        // What Malayalam wrote with a joiner before these had characters of their own.
        'ൺ' => "ണ്",
        'ൻ' => "ന്",
        'ർ' => "ര്",
        'ൽ' => "ല്",
        'ൾ' => "ള്",
        'ൿ' => "ക്",
        _ => return folded.push(digit(letter).unwrap_or(letter)),
    };
    folded.push_str(plain);
}

fn digit(character: char) -> Option<char> {
    let code = u32::from(character);
    let value = NOUGHTS.iter().find_map(|nought| code.checked_sub(*nought).filter(|value| *value < 10))?;
    char::from_digit(value, 10)
}

/// Puts spaces where ICU sees no end of a word and people do.
fn part(text: &str) -> String {
    let mut parted = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let (before, after) = (parted.chars().next_back().unwrap_or(' '), characters.peek().copied().unwrap_or(' '));
        let between = |is: fn(char) -> bool| is(before) && is(after);
        match character {
            APOSTROPHE if between(is_cyrillic) || between(is_hebrew) => {}
            '"' if between(is_hebrew) => {}
            '·' if between(|letter| letter == 'l') => {}
            '.' if between(|digit| digit.is_ascii_digit()) => parted.push('.'),
            APOSTROPHE | '"' | '·' | '.' | ':' | '_' | '\u{55f}' | '\u{2027}' | '\u{203f}' | '\u{2040}'
            | '\u{2054}' => {
                parted.push(' ');
            }
            _ => parted.push(character),
        }
    }
    parted
}

fn is_hebrew(letter: char) -> bool {
    matches!(letter, '\u{5d0}'..='\u{5ea}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_word_are_one() {
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
    fn other_letters_stay_others() {
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
    fn words_end_where_people_see_it() {
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

use proptest::prelude::*;

use super::{
    Keywords,
    folding::{is_mark, is_of_word},
};

fn found<'a>(keywords: &[&'a str], text: &str) -> Vec<&'a str> {
    let prepared = Keywords::of(keywords);
    let found: Vec<&str> = prepared.found_in(text).collect();
    keywords.iter().copied().filter(|keyword| found.contains(keyword)).collect()
}

fn matches(keyword: &str, text: &str) -> bool {
    !found(&[keyword], text).is_empty()
}

#[test]
fn case_makes_no_difference() {
    for (keyword, text) in [
        ("rust", "Rust is fine"),
        ("RUST", "about rust"),
        ("москва", "МОСКВА слезам не верит"),
        ("ёлка", "ЁЛКА"),
        // The final sigma has the same upper case.
        ("ΟΔΥΣΣΕΥΣ", "ο Οδυσσευς ταξιδεύει"),
        ("Οδυσσευς", "ΟΔΥΣΣΕΥΣ"),
        ("οδυσσευσ", "Οδυσσευς"),
        ("straße", "STRASSE"),
        ("STRASSE", "eine lange Straße"),
        ("straße", "STRAẞE"),
        ("ﬁn", "Fin"),
        ("ÀÉÎ", "àéî"),
        // The four i of Turkish are one.
        ("istanbul", "İSTANBUL"),
        ("İstanbul", "istanbul'da"),
        ("İstanbul", "ISTANBUL"),
        ("ısparta", "ISPARTA"),
        ("isparta", "ısparta"),
    ] {
        assert!(matches(keyword, text), "{keyword} in {text}");
    }
    assert!(!matches("Αθήνα", "ΑΘΗΝΑ"), "an accent is a difference");
    assert!(!matches("cafe", "café"), "an accent is a difference");
}

#[test]
fn words_are_whole() {
    for (keyword, text) in [
        ("rust", "rust"),
        ("rust", "(rust)"),
        ("rust", "rust, and rust's friends"),
        ("rust", "#rust"),
        ("rust", "@Rust:"),
        ("C++", "in C++17"),
        ("24", "at 24 °C"),
        ("कर", "काम कर लो"),
        ("سلام", "سلام، دنیا"),
        ("क्रिकेट", "आज क्रिकेट देखा"),
        // A keycap is a sign.
        ("rust", "1\u{fe0f}\u{20e3}Rust"),
        // A mark with no letter before it.
        ("rust", " \u{200c}rust"),
        ("rust", "\u{200d}\u{301}rust"),
        ("rust", "👩\u{200d}rust"),
    ] {
        assert!(matches(keyword, text), "{keyword} in {text}");
    }
    for (keyword, text) in [
        ("rust", "trust"),
        ("rust", "rusty"),
        ("rust", "rust_lang"),
        ("24", "2024"),
        ("ель", "артель"),
        ("कर", "करना"),
        // The virama and the accent belong to the letter before them.
        ("हिन", "हिन्दी"),
        ("cafe", "cafe\u{301}"),
        ("سلام", "السلام"),
        // Without the joiner's sign this would be two words.
        ("می", "می\u{200c}خواهم"),
        ("خواهم", "می\u{200c}\u{200c}خواهم"),
        ("rust", "a\u{301}rust"),
    ] {
        assert!(!matches(keyword, text), "{keyword} in {text}");
    }
}

#[test]
fn scripts_without_spaces_match_within() {
    for (keyword, text) in [
        ("地震", "昨夜東京で地震がありました"),
        ("地震", "地震"),
        ("ラスト", "プログラミング言語ラストです"),
        ("さくら", "きれいなさくらの花"),
        ("กรุงเทพ", "อากาศที่กรุงเทพวันนี้ร้อนมาก"),
        ("ភ្នំពេញ", "ខ្ញុំរស់នៅភ្នំពេញ។"),
        ("서울", "서울에서는 비가 온다"),
        // A Latin word ends where such a script begins.
        ("AI", "最新AI技術"),
        ("2024", "2024年"),
    ] {
        assert!(matches(keyword, text), "{keyword} in {text}");
    }
    assert!(!matches("AI", "最新AIR技術"));
}

#[test]
fn keywords_may_have_signs_and_several_words() {
    for (keyword, text) in [
        ("#rust", "I like #Rust."),
        ("#地震", "速報 #地震 です"),
        ("@rust_lang", "via @Rust_Lang"),
        ("event streaming", "Event\n\tSTREAMING rules"),
        ("  event   streaming ", "event streaming"),
        ("a a", "xa a a"),
        ("🚀", "to the moon🚀🚀"),
        ("❤️", "I ❤ it"),
        ("❤", "I ❤️ it"),
        ("👍", "👍🏽"),
        ("葛城", "奈良県葛\u{E0100}城市で地震"),
        ("葛\u{E0100}城", "奈良県葛城市で地震"),
        ("ᠠᠨ", "ᠠ\u{180B}ᠨ\u{180F}"),
        ("🇷🇺", "🇸🇪🇷🇺🇸🇪"),
        ("🇷🇺🇸🇪", "🇷🇺🇸🇪"),
        ("🇺🇸", "🇷🇺 🇺🇸"),
        ("🇺", "🇺"),
        ("🚀", "👩\u{200d}🚀"),
    ] {
        assert!(matches(keyword, text), "{keyword} in {text}");
    }
    for (keyword, text) in [
        ("#rust", "rust"),
        ("#rust", "#rustlang"),
        ("#rust", "C#rust"),
        ("@rust", "me@rust.org"),
        ("@rust", "@rust_lang"),
        ("event streaming", "events streaming"),
        ("event streaming", "eventstreaming"),
        // Two flags don't make a third.
        ("🇺🇸", "🇷🇺🇸🇪"),
        ("🇺", "🇷🇺"),
        ("🇷", "🇷🇺"),
        ("🇷🇺🇸", "🇷🇺🇸🇪"),
    ] {
        assert!(!matches(keyword, text), "{keyword} in {text}");
    }
}

#[test]
fn each_keyword_is_found_once_and_in_the_statements_order() {
    let keywords = Keywords::of(&["Kafka", "rust", "KAFKA", "#rust"]);
    let found: Vec<&str> = keywords.found_in("RUST, rust and kafka: #Rust").collect();
    assert_eq!(found, ["Kafka", "rust", "#rust"]);
    assert!(!Keywords::is_keyword(" \u{fe0f}\t") && Keywords::is_keyword("#"));
}

/// What a search finds, as slowly and simply as it can be written.
fn by_oracle(keyword: &str, text: &str) -> bool {
    let folded = |text: &str| {
        let selectors =
            ['\u{fe00}'..='\u{fe0f}', '\u{e0100}'..='\u{e01ef}', '\u{180b}'..='\u{180d}', '\u{180f}'..='\u{180f}'];
        let is_selector = |letter: &char| selectors.iter().any(|range| range.contains(letter));
        let text: String = text.chars().filter(|letter| !is_selector(letter)).collect();
        let mut text = text.to_lowercase().to_uppercase().to_lowercase().replace('ς', "σ");
        while text.contains("i\u{307}") {
            text = text.replace("i\u{307}", "i");
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect::<Vec<char>>()
    };
    let (keyword, text) = (folded(keyword), folded(text));
    let at = |place: Option<usize>| place.and_then(|place| text.get(place)).copied();
    let both_of_word =
        |one: Option<char>, other: Option<char>| one.is_some_and(is_of_word) && other.is_some_and(is_of_word);
    let (first, last) = (keyword.first().copied(), keyword.last().copied());
    // A flag is two signs, counted from where their run begins.
    let is_flags = |letter: &char| ('🇦'..='🇿').contains(letter);
    let in_flag = |place: usize| {
        let before = text[..place].iter().rev().take_while(|letter| is_flags(letter)).count();
        before % 2 == 1 && text.get(place).is_some_and(is_flags)
    };
    (0..text.len()).filter(|start| text[*start..].starts_with(&keyword)).any(|start| {
        let end = start + keyword.len();
        let marks = text[..start].iter().rev().take_while(|letter| is_mark(**letter)).count();
        let before = at((start - marks).checked_sub(1));
        let tag = matches!(first, Some('#' | '@')) && before.is_some_and(is_of_word);
        let cuts = in_flag(start) || in_flag(end);
        !tag && !cuts && !both_of_word(before, first) && !both_of_word(last, at(Some(end)))
    })
}

proptest! {
    #[test]
    fn a_search_finds_what_the_oracle_finds(
        keyword in "[aAsSßẞσςΣiIıİ\u{307}\u{fe0f}#@ _1हि\u{94d}地가ไé🇷🇺\u{200c}\u{e0100}\u{20e3}]{1,3}",
        text in "[aAsSßẞσςΣiIıİ\u{307}\u{fe0f}#@ _1हि\u{94d}地가ไé🇷🇺\u{200c}\u{e0100}\u{20e3}\n.]{0,14}",
    ) {
        prop_assume!(Keywords::is_keyword(&keyword));
        prop_assert_eq!(matches(&keyword, &text), by_oracle(&keyword, &text), "{:?} in {:?}", keyword, text);
    }

    #[test]
    fn any_text_can_be_searched(keyword in ".{1,4}", text in ".*") {
        prop_assume!(Keywords::is_keyword(&keyword));
        prop_assert_eq!(matches(&keyword, &text), by_oracle(&keyword, &text));
        let with_it = format!("{text} {keyword} {text}");
        prop_assert!(matches(&keyword, &with_it), "{:?} in {:?}", keyword, with_it);
    }
}

//! `detect_language(text)`: the language that a text is written in, by whatlang's tables.

use std::sync::Arc;

use arrow::{
    array::{AsArray, StringArray},
    datatypes::DataType,
};
use datafusion::{
    common::{Result, plan_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use whatlang::Lang;

/// A text with fewer letters says nothing: names and shouts are the same in many languages.
const LEAST_LETTERS: usize = 12;
/// Texts are cut here: more letters don't make a language clearer, and take time.
const MOST_BYTES: usize = 4096;

/// The function for the planner.
pub fn detect_language_udf() -> ScalarUDF {
    ScalarUDF::new_from_impl(DetectLanguage { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DetectLanguage {
    signature: Signature,
}

impl ScalarUDFImpl for DetectLanguage {
    fn name(&self) -> &'static str {
        "detect_language"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [text] if text.is_string() || *text == DataType::Null => Ok(vec![DataType::Utf8]),
            _ => plan_err!("write detect_language(text), where text is a string"),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = args.args[0].to_array(args.number_rows)?;
        let languages: StringArray = texts.as_string::<i32>().iter().map(|text| text.and_then(language)).collect();
        Ok(ColumnarValue::Array(Arc::new(languages)))
    }
}

/// The language of a text: its code in ISO 639-1, or in ISO 639-3 if it has none there. `None` for a text of fewer than
/// [`LEAST_LETTERS`] letters (a sign of Han, kana or Hangul counts as three), or one that could as well be of another
/// language. Addresses, `@names` and `#tags` don't count. The same text always gives the same answer.
fn language(text: &str) -> Option<&'static str> {
    let text = words(&text[..text.floor_char_boundary(MOST_BYTES)]);
    if text.chars().map(letters).sum::<usize>() < LEAST_LETTERS {
        return None;
    }
    let found = whatlang::detect(&text).filter(whatlang::Info::is_reliable)?;
    Some(code(found.lang()))
}

/// The words that are of the text's language.
fn words(text: &str) -> String {
    let is_name = |word: &str| word.starts_with(['@', '#']) || word.contains("://") || word.starts_with("www.");
    let words = text.split_whitespace().filter(|word| word.contains(char::is_alphabetic) && !is_name(word));
    words.collect::<Vec<_>>().join(" ")
}

fn letters(letter: char) -> usize {
    match letter {
        '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' | '\u{20000}'..='\u{3FFFF}' => 3,
        letter => usize::from(letter.is_alphabetic()),
    }
}

/// The codes of ISO 639-1.
#[rustfmt::skip]
const CODES: [(Lang, &str); 70] = [
    (Lang::Afr, "af"), (Lang::Aka, "ak"), (Lang::Amh, "am"), (Lang::Ara, "ar"), (Lang::Aze, "az"), (Lang::Bel, "be"),
    (Lang::Ben, "bn"), (Lang::Bul, "bg"), (Lang::Cat, "ca"), (Lang::Ces, "cs"), (Lang::Cmn, "zh"), (Lang::Cym, "cy"),
    (Lang::Dan, "da"), (Lang::Deu, "de"), (Lang::Ell, "el"), (Lang::Eng, "en"), (Lang::Epo, "eo"), (Lang::Est, "et"),
    (Lang::Fin, "fi"), (Lang::Fra, "fr"), (Lang::Guj, "gu"), (Lang::Heb, "he"), (Lang::Hin, "hi"), (Lang::Hrv, "hr"),
    (Lang::Hun, "hu"), (Lang::Hye, "hy"), (Lang::Ind, "id"), (Lang::Ita, "it"), (Lang::Jav, "jv"), (Lang::Jpn, "ja"),
    (Lang::Kan, "kn"), (Lang::Kat, "ka"), (Lang::Khm, "km"), (Lang::Kor, "ko"), (Lang::Lat, "la"), (Lang::Lav, "lv"),
    (Lang::Lit, "lt"), (Lang::Mal, "ml"), (Lang::Mar, "mr"), (Lang::Mkd, "mk"), (Lang::Mya, "my"), (Lang::Nep, "ne"),
    (Lang::Nld, "nl"), (Lang::Nob, "nb"), (Lang::Ori, "or"), (Lang::Pan, "pa"), (Lang::Pes, "fa"), (Lang::Pol, "pl"),
    (Lang::Por, "pt"), (Lang::Ron, "ro"), (Lang::Rus, "ru"), (Lang::Sin, "si"), (Lang::Slk, "sk"), (Lang::Slv, "sl"),
    (Lang::Sna, "sn"), (Lang::Spa, "es"), (Lang::Srp, "sr"), (Lang::Swe, "sv"), (Lang::Tam, "ta"), (Lang::Tel, "te"),
    (Lang::Tgl, "tl"), (Lang::Tha, "th"), (Lang::Tuk, "tk"), (Lang::Tur, "tr"), (Lang::Ukr, "uk"), (Lang::Urd, "ur"),
    (Lang::Uzb, "uz"), (Lang::Vie, "vi"), (Lang::Yid, "yi"), (Lang::Zul, "zu"),
];

fn code(language: Lang) -> &'static str {
    let of_two_letters = CODES.iter().find(|(known, _)| *known == language).map(|(_, code)| *code);
    of_two_letters.unwrap_or_else(|| language.code())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clear_texts_have_a_language() {
        for (text, code) in [
            ("The weather is lovely today and we are going for a walk in the park", "en"),
            ("Heute ist das Wetter schön und wir gehen im Park spazieren", "de"),
            ("Сегодня прекрасная погода, и мы идём гулять в парк", "ru"),
            ("Сьогодні чудова погода, і ми йдемо гуляти до парку", "uk"),
            ("Σήμερα ο καιρός είναι υπέροχος", "el"),
            ("الطقس جميل اليوم وسنذهب في نزهة إلى الحديقة", "ar"),
            ("आज मौसम बहुत अच्छा है और हम सब लोग मिलकर शहर के बड़े बाग़ में घूमने के लिए जा रहे हैं", "hi"),
            ("今天天气很好，我们去公园散步", "zh"),
            ("今日はとても天気がいいので公園へ散歩に行きます", "ja"),
            ("오늘은 날씨가 아주 좋아서 공원에 갑니다", "ko"),
            ("วันนี้อากาศดีมาก เราจะไปเดินเล่นที่สวน", "th"),
            ("Bugün hava çok güzel, arkadaşlarımla birlikte parkta yürüyoruz ve akşam yemek yiyeceğiz", "tr"),
        ] {
            assert_eq!(language(text), Some(code), "{text}");
            let with_names = format!("{text} @somebody_else https://example.org/a/long/address #hashtag 🚀🚀 » «");
            assert_eq!(language(&with_names), Some(code), "{with_names}");
        }
    }

    #[test]
    fn what_is_short_or_could_be_another_language_has_none() {
        for text in [
            "",
            "ok",
            "lol!!! 😂😂",
            "1234567890",
            "@one @two #three https://example.org/four",
            "Ω",
            "地震",
            "Kafka Kafka",
        ] {
            assert_eq!(language(text), None, "{text}");
        }
    }

    #[test]
    fn every_language_has_a_code_of_two_letters() {
        for language in Lang::all() {
            assert_eq!(code(*language).len(), 2, "{language}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_asked(text in ".*") {
            prop_assert_eq!(language(&text), language(&text));
        }
    }
}

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
    for text in
        ["", "ok", "lol!!! 😂😂", "1234567890", "@one @two #three https://example.org/four", "Ω", "地震", "Kafka Kafka"]
    {
        assert_eq!(language(text), None, "{text}");
    }
}

#[test]
fn a_text_that_names_products_keeps_its_language() {
    for (text, code) in [
        ("RustとTypeScriptの両方で同じツールを実装して比べました", Some("ja")),
        ("今日はKafka ConnectとDebeziumでデータ連携を試しました", Some("ja")),
        ("RustでWebAssemblyのコンパイラを書いてみました", Some("ja")),
        ("PostgreSQLとKafkaを使ってデータを処理する仕組みを作りました", Some("ja")),
        ("我们用PostgreSQL和Kafka Connect搭建了一个数据处理平台", Some("zh")),
        ("오늘은 PostgreSQL과 Kafka Connect로 데이터를 처리했습니다", Some("ko")),
        ("The word 木漏れ日 means the light that shines through the leaves of the trees", Some("en")),
        // What is left has too few letters.
        ("WebAssembly 地震", None),
        ("a・・・・・・・・・・", None),
    ] {
        assert_eq!(language(text), code, "{text}");
    }
}

#[test]
fn wide_and_narrow_letters_are_letters_of_their_language() {
    for (text, code) in [
        (
            "Ｔｏｄａｙ ｉｓ ａ ｌｏｖｅｌｙ ｄａｙ ａｎｄ ｗｅ ａｒｅ ｇｏｉｎｇ ｆｏｒ ａ ｗａｌｋ ｉｎ ｔｈｅ ｐａｒｋ",
            Some("en"),
        ),
        ("ﾄｳｷｮｳﾃﾞｼﾞｼﾝｶﾞｱﾘﾏｼﾀ", Some("ja")),
        ("ｶﾞﾊﾟ", None),
        ("，！？，！？，！？，！？，！？", None),
        ("Ω，！？，！？，！？，！？，！？", None),
        ("￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥ ㈱㈱㈱㈱㈱㈱㈱㈱㈱ Kafka", None),
        (
            "The weather is lovely today，and we are going for a walk！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！！",
            Some("en"),
        ),
        ("ﾡﾡﾡﾡﾡﾡﾡﾡﾡﾡﾡﾡ", Some("ko")),
    ] {
        assert_eq!(language(text), code, "{text}");
    }
    assert_ne!(language("Ｔｏｄａｙ ｉｓ ａ ｌｏｖｅｌｙ ｄａｙ"), Some("ko"));
}

#[test]
fn names_tags_and_addresses_take_no_other_text_with_them() {
    for (text, code) in [
        ("今天天气很好，我们去公园散步https://t.co/abc", Some("zh")),
        ("今天天气很好www.example.org/abc我们去公园散步", Some("zh")),
        ("#地震、昨夜東京で地震がありました。とても怖かったです", Some("ja")),
        ("＃地震、昨夜東京で地震がありました。とても怖かったです", Some("ja")),
        ("@小明，今天天气很好，我们去公园散步吧", Some("zh")),
        ("@rust_langさん今日はとても天気がいいですね", Some("ja")),
        ("今天天气很好“@some_one_with_a_long_name”我们去公园散步", Some("zh")),
        ("(#streaming @one) (https://example.org/a/long/address)", None),
        ("“@somebody_else” #हिन्दी_में_लिखें HTTPS://EXAMPLE.ORG/LONG", None),
        ("#地震がありましたとても怖かったです", None),
        ("Awww.. the weather is lovely today and we are going for a walk in the park", Some("en")),
    ] {
        assert_eq!(language(text), code, "{text}");
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

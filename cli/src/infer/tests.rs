use millstream_codec::is_date;

use super::*;

fn types(guess: &Guess) -> Vec<String> {
    let show = |field: &Field| {
        let null = if field.nullable { "" } else { " not null" };
        match &field.kind {
            Kind::Scalar(name) => format!("{}: {name}{null}", field.name),
            other => format!("{}: {other:?}{null}", field.name),
        }
    };
    guess.fields.iter().map(show).collect()
}

#[test]
fn types_of_json_are_guessed_from_all_records() {
    let guess = of_json_lines(concat!(
        r#"{"id":1,"price":10,"big":9223372036854775808,"rate":0.1234567890123456,"at":1795255202000,"day":"2026-11-21","ok":true,"who":{"n":1,"x":null},"tags":["a"],"odd":1,"note":null,"zip":"0123","huge":1e40}"#,
        "\n\n",
        r#"{"id":2,"price":10.125,"big":1,"rate":12345.6,"at":1795255203000,"day":"2026-11-22","ok":false,"who":{"n":2.5},"tags":[],"odd":"x","zip":"x","huge":1}"#,
    ))
    .unwrap();
    let mut found = types(&guess);
    found.sort();
    let who = found.pop().unwrap_or_default();
    assert!(found.pop() == Some("tags: List(Scalar(\"string\")) not null".into()) || !who.is_empty(), "{found:?}");
    for expected in [
        "id: bigint not null",
        "price: decimal(18,3) not null",
        "big: decimal(38,0) not null",
        "rate: double not null",
        "at: timestamp(ms) not null",
        "day: date not null",
        "ok: boolean not null",
        "zip: string not null",
        "huge: double not null",
    ] {
        assert!(types(&guess).contains(&expected.to_owned()), "{expected}: {:?}", types(&guess));
    }
    assert_eq!(guess.event_time().unwrap().name, "at");
    let left_out = guess.left_out.join("; ");
    for told in ["`odd`: its values are of several types", "`note`: it is null", "`who.x`: it is null"] {
        assert!(left_out.contains(told), "{left_out}");
    }
    assert_eq!((guess.records, guess.fixture.lines().count()), (2, 2));
    assert!(of_json_lines("{\"a\":1}\n[1]\n").unwrap_err().starts_with("line 2: "));
    assert!(of_json_lines("\n").is_err());
}

#[test]
fn types_of_csv_are_guessed_from_its_cells() {
    let text = "at,code,price,n,flag,note\n2026-11-21T10:00:00Z,007,1.50,1,true,\n2026-11-21T10:00:00.5+01:00,8,2,,false,\"\"\n";
    let guess = of_csv(text).unwrap();
    let expected = [
        "at: timestamp not null",
        "code: string not null",
        "price: decimal(18,2) not null",
        "n: bigint",
        "flag: boolean not null",
        "note: string",
    ];
    assert_eq!(types(&guess), expected);
    assert_eq!(guess.left_out, [""; 0]);
    assert_eq!(guess.fixture, text);
    assert!(of_csv("a,b\n1\n").unwrap_err().contains("line 2: 1 cells"));
    assert!(of_csv("a,a\n1,2\n").unwrap_err().contains("names `a` twice"));
    assert!(of_csv("a,_offset\n1,2\n").unwrap_err().contains("`_offset`: the name is reserved"));
    assert_eq!(types(&of_csv("a,b\n1,\n").unwrap()), ["a: bigint not null", "b: string"]);
}

#[test]
fn long_ids_stay_exact() {
    let id = "123456789012345678901";
    let line = format!(r#"{{"id":{id},"negative":-{id},"list":[{id}],"rate":1.5e25,"text":"{id}","whole":{id}.5}}"#);
    let guess = of_json_lines(&format!("{line}\n{}", line.replace("{id}.5", "0.5"))).unwrap();
    let types = types(&guess);
    for expected in ["id: decimal(38,0) not null", "negative: decimal(38,0) not null", "rate: double not null"] {
        assert!(types.contains(&expected.to_owned()), "{expected}: {types:?}");
    }
    assert!(types.iter().any(|found| found.starts_with("list: List(Scalar(\"decimal(38,0)")), "{types:?}");
}

#[test]
fn times_are_what_the_decoder_reads() {
    for time in [
        "2026-11-21T10:00:02Z",
        "2026-11-21t10:00:02.123456z",
        "2026-11-21T10:00:02-05:30",
        "2026-11-21T10:00:02.5",
        "2026-11-30 10:00:00",
        "2026-11-30 10:00:00Z",
    ] {
        let guess = of_json_lines(&format!("{{\"at\":\"{time}\"}}")).unwrap();
        assert_eq!(types(&guess), ["at: timestamp not null"], "{time}");
    }
    for text in [
        "2026-11-21 10:00:02.Z",
        "yesterday, at ten o'clock",
        "0000-01-01T00:00:00Z",
        "2026-11-21T25:00:00Z",
        "2026-11-21T10:00:00+25:99",
    ] {
        let guess = of_json_lines(&format!("{{\"at\":\"{text}\"}}")).unwrap();
        assert_eq!(types(&guess), ["at: string not null"], "{text}");
    }
    assert!(is_date("2026-11-21") && !is_date("2026-02-30") && !is_date("0000-01-01"));
}

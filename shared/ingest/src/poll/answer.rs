use millstream_codec::{check_json, list_items};
use millstream_core::{NewRecord, Result};
use millstream_pipeline::Topic;

use super::Failed;
use crate::judge::Judge;

/// Makes records of answers.
pub(super) struct Records {
    /// Where the list of records is; none when the answer is one record.
    route: Option<Vec<String>>,
    /// Reads the key, if records have one.
    judge: Option<Judge>,
}

impl Records {
    pub(super) fn new(topic: &Topic, route: Option<Vec<String>>, key: Option<&str>) -> Result<Self> {
        let judge = key.map(|key| Judge::new(topic, &[key], Some(vec![key.to_owned()]), None));
        Ok(Self { route, judge: judge.transpose()? })
    }

    /// The records of an answer that came at `now_ms`, byte for byte as they stand there. One whose key can't be read goes
    /// without: functions that read the topic make a dead letter of it, with its bytes and the reason.
    pub(super) fn of(&self, body: &[u8], now_ms: i64) -> Result<Vec<NewRecord>, Failed> {
        let text = std::str::from_utf8(body).map_err(|_| Failed::passing("the answer is not UTF-8"))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        let values = match &self.route {
            Some(route) => list_items(text, &route.iter().map(String::as_str).collect::<Vec<_>>()),
            None => check_json(text).map(|()| vec![text]),
        };
        let values = values.map_err(|reason| Failed::passing(format!("the answer: {reason}")))?;
        let keys = match &self.judge {
            Some(judge) => {
                let judged = judge.judge(&values).map_err(|error| Failed::passing(error.to_string()))?;
                judged.into_iter().map(|fit| fit.ok().and_then(|fit| fit.texts.into_iter().next().flatten())).collect()
            }
            None => vec![None; values.len()],
        };
        let record = |(value, key): (&str, Option<Vec<u8>>)| NewRecord {
            key,
            value: Some(value.as_bytes().to_vec()),
            timestamp_ms: Some(now_ms),
            ..NewRecord::default()
        };
        Ok(values.into_iter().zip(keys).map(record).collect())
    }
}

#[cfg(test)]
mod tests {
    use millstream_pipeline::Pipeline;

    use super::*;

    fn of(route: Option<&[&str]>, key: Option<&str>, body: &[u8]) -> Result<Vec<(Option<String>, String)>, String> {
        let text = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint, b: string } } }\nfunctions: { }\n";
        let pipeline = Pipeline::parse(text, "p.yaml".as_ref()).unwrap();
        let route = route.map(|route| route.iter().map(|name| (*name).to_owned()).collect());
        let records = Records::new(&pipeline.topics["t"], route, key).unwrap().of(body, 7);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let records = records.map_err(|failed| failed.reason)?;
        assert!(records.iter().all(|record| record.timestamp_ms == Some(7)));
        Ok(records.into_iter().map(|record| (record.key.map(text), text(record.value.unwrap()))).collect())
    }

    #[test]
    fn an_answer_is_one_record_or_one_per_item() {
        let one = |key: Option<&str>, value: &str| (key.map(str::to_owned), value.to_owned());
        assert_eq!(of(None, None, b" {\"a\": 1.50}\n"), Ok(vec![one(None, "{\"a\": 1.50}")]));
        let body = br#"{"n": 2, "data": {"items": [{"a":1,"b":"x"}, {"a":"no","b":5}, {"a":3}]}}"#;
        let items = of(Some(&["data", "items"]), Some("b"), body).unwrap();
        let expected =
            [one(Some("x"), r#"{"a":1,"b":"x"}"#), one(None, r#"{"a":"no","b":5}"#), one(None, r#"{"a":3}"#)];
        assert_eq!(items, expected, "what doesn't fit goes without a key");
        assert_eq!(of(Some(&[]), Some("a"), b"[{\"a\":1}]"), Ok(vec![one(Some("1"), "{\"a\":1}")]));
        assert_eq!(of(Some(&[]), None, b"[]"), Ok(Vec::new()));
        assert_eq!(of(None, None, b"\xef\xbb\xbf{}"), Ok(vec![one(None, "{}")]));
    }

    #[test]
    fn what_is_not_json_fails_without_a_word_of_it() {
        for (body, says) in [
            (b"<html>hunter2</html>".as_slice(), "not JSON"),
            (b"", "not JSON"),
            (b"{} hunter2", "not JSON"),
            (b"\xff", "UTF-8"),
        ] {
            let said = of(None, None, body).unwrap_err();
            assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
        }
        assert_eq!(of(Some(&["x"]), None, b"{}").unwrap_err(), "the answer: there is no list at `x`");
    }
}

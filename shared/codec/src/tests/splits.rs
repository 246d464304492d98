//! Any records, cut into batches anywhere.

use arrow::{array::RecordBatch, compute::concat_batches};

use super::*;

proptest! {
    #[test]
    fn any_split_of_a_batch_decodes_like_its_records_one_by_one(
        records in prop::collection::vec(record(), 0..25), at in any::<prop::sample::Index>(), skip: bool,
    ) {
        let tombstones = if skip { Tombstones::Skip } else { Tombstones::DeadLetter };
        let columns = full_schema(&schema()).fields().iter().map(|field| field.name().clone()).collect();
        let decoder = JsonDecoder::new(JsonOptions { columns: Some(columns), tombstones, ..options() }).unwrap();
        let whole = batch(&records.iter().map(Option::as_deref).collect::<Vec<_>>());
        let expected = parts(&decoder, &whole, &(0..=records.len()).collect::<Vec<_>>());
        let at = at.index(records.len() + 1);
        prop_assert_eq!(&parts(&decoder, &whole, &[0, at, records.len()]), &expected);
        prop_assert_eq!(&parts(&decoder, &whole, &[0, records.len()]), &expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
        decode_bytes(&values.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

/// Records of every kind: good, bad, and broken at any position.
fn record() -> impl Strategy<Value = Option<Vec<u8>>> {
    let good = (any::<i32>(), "[a-zé\"\\\\]{0,6}", prop::option::of(0..100i32), prop::collection::vec("[a-z]{0,3}", 0..4)).prop_map(
        |(count, branch, amount, tags)| {
            let line = serde_json::json!({"sku": branch, "prices": [{"value": "1.5", "at": count}, {"value": count % 1000}]});
            serde_json::json!({"count": count, "branch": branch, "amount": amount, "tags": tags, "line": line, "x": [tags]})
                .to_string()
                .into_bytes()
        },
    );
    let broken = (good.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut value, at, byte)| {
        let at = at.index(value.len());
        value[at] = byte;
        value
    });
    let cut =
        (good.clone(), any::<prop::sample::Index>()).prop_map(|(value, at)| value[..at.index(value.len())].to_vec());
    let fixed = prop::sample::select(vec![
        "",
        "}",
        "{}",
        "null",
        r#"{"branch":null}"#,
        r#"{"branch":"a","count":1e400}"#,
        r#"{"branch":"a"}{"branch":"b"}"#,
        r#"{"branch":"a","tags":["x",1]}"#,
        r#"{"branch":"a","line":{"sku":"x","prices":[{"value":1},{}]}}"#,
        r#"{"branch":"a","line""#,
    ]);
    prop_oneof![
        4 => good.prop_map(Some),
        2 => broken.prop_map(Some),
        1 => cut.prop_map(Some),
        1 => fixed.prop_map(|value| Some(value.as_bytes().to_vec())),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Some),
        1 => Just(None),
    ]
}

/// The combined result of decoding the parts of a batch.
#[derive(Debug, PartialEq)]
struct Parts {
    rows: RecordBatch,
    index: Vec<usize>,
    bad: Vec<(usize, String)>,
    event_us: Vec<i64>,
}

/// Decodes each part between two of `cuts` separately.
fn parts(decoder: &JsonDecoder, whole: &Batch, cuts: &[usize]) -> Parts {
    let (mut rows, mut index, mut bad, mut event_us) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for cut in cuts.windows(2) {
        let Some(part) = whole.after(cut[0] as i64) else { continue };
        let decoded = decoder.decode(&part.first(cut[1] - cut[0])).unwrap();
        index.extend(decoded.index.iter().map(|index| index + cut[0]));
        bad.extend(decoded.bad.into_iter().map(|bad| (bad.index + cut[0], bad.reason)));
        event_us.extend_from_slice(decoded.event_time.values());
        rows.push(decoded.rows);
    }
    Parts { rows: concat_batches(&decoder.output_schema(), &rows).unwrap(), index, bad, event_us }
}

use super::*;

const FILE: &str = r#"
name: shop
topics:
  orders:
    partitions: 7
    generation: 3
    compression: zstd
    event_time: at
    schema:
      z: string
      product: string not null
      price: "decimal(18,2) not null"
      at: timestamp(ms) not null
      when: timestamp
      raw: binary
      day: date
      numbers: { "it's \"odd\"": int, b: bigint, f: float, d: double not null, yes: boolean }
      items: [{ price: "decimal(4,4)", tags: [string] }]
  plain: { partitions: 1, schema: { a: bigint } }
functions:
  sales:
    uses: aggregate
    from: [orders, plain]
    sql: |
      SELECT product, -- "why"
             count(*) AS n FROM orders GROUP BY 1
    into: postgres.sales
    late: dead-letter
    lateness: 2h
    start: latest
    batch: { max_records: 7 }
  all: { uses: archive, from: plain, into: lake.plain }
references:
  p: { from: postgres.products, refresh: 1m, schema: { x: string not null } }
  q: { from: lake.folder/q.parquet, schema: { x: int } }
"#;

#[test]
fn a_declaration_is_a_pipeline_file_of_the_same_meaning() {
    let pipeline = Pipeline::parse(FILE, "pipeline.yaml".as_ref()).unwrap();
    let text = pipeline.declaration("sales", &["p", "q"]).unwrap();
    let read = Pipeline::parse(&text, "pipeline.yaml".as_ref()).unwrap();
    assert_eq!(read.declaration("sales", &["p", "q"]), Some(text.clone()));
    assert_eq!(read.functions.keys().collect::<Vec<_>>(), ["sales"]);
    let (before, after) = (&pipeline.functions["sales"], &read.functions["sales"]);
    let (was, is) = (before.reading().unwrap(), after.reading().unwrap());
    assert_eq!((&was.from, &was.sql.text), (&is.from, &is.sql.text));
    assert_eq!((was.lateness_ms, was.ahead_ms, &before.into), (is.lateness_ms, is.ahead_ms, &after.into));
    for (name, topic) in &read.topics {
        let before = &pipeline.topics[name];
        assert_eq!(
            (&topic.schema, topic.generation, &topic.event_time),
            (&before.schema, before.generation, &before.event_time)
        );
    }
    for (name, reference) in &read.references {
        let before = &pipeline.references[name];
        assert_eq!((&reference.from, &reference.schema), (&before.from, &before.schema));
    }
    assert!(!text.contains("zstd") && !text.contains("max_records") && !text.contains("latest"), "{text}");
}

#[test]
fn what_only_decides_where_a_declared_functionbegins_is_not_in_it() {
    let of = |text: &str| {
        let pipeline = Pipeline::parse(text, "pipeline.yaml".as_ref()).unwrap();
        (pipeline.declaration("sales", &[]), pipeline.declaration("all", &[]))
    };
    let other = FILE.replace("latest", "earliest").replace("partitions: 7", "partitions: 9").replace("1m", "2m");
    assert_eq!(of(FILE), of(&other));
    assert_ne!(of(FILE), of(&FILE.replace("generation: 3", "generation: 4")));
    assert!(of(FILE).1.unwrap().contains("SELECT"), "the default statement is spelled out");
}

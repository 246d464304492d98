//! The JSON Schema and the documentation are what the code says.

use std::{fs, path::Path};

use millstream_pipeline::Pipeline;

/// The files, from the folder of this crate, with what should be in them.
fn generated() -> [(&'static str, String); 2] {
    [
        ("pipeline.schema.json", format!("{:#}\n", Pipeline::json_schema())),
        ("../../docs/pipeline-file.md", Pipeline::documentation()),
    ]
}

#[test]
fn the_generated_files_are_up_to_date() {
    for (path, expected) in generated() {
        let found = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default();
        let hint = "write it again: cargo test -p millstream-pipeline --test generated -- --ignored";
        assert!(found == expected, "{path} is not what the code says; {hint}");
    }
}

#[test]
#[ignore = "it writes the files"]
fn write_the_generated_files() {
    for (path, text) in generated() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn the_schema_says_what_each_kind_of_function_needs() {
    let schema = Pipeline::json_schema();
    let kinds = schema["definitions"]["Function"]["allOf"].as_array().unwrap();
    let of = |name: &str| kinds.iter().find(|kind| kind["if"]["properties"]["uses"]["const"] == name).unwrap();
    let one_of =
        serde_json::json!([{ "required": ["generate"] }, { "required": ["poll"] }, { "required": ["webhook"] }]);
    assert_eq!(of("ingest")["then"]["oneOf"], one_of);
    assert_eq!(of("aggregate")["then"]["required"], serde_json::json!(["from", "sql"]));
    assert_eq!(of("archive")["then"]["properties"]["late"], false);
    assert!(!schema.to_string().contains("null\""), "no field may be empty");
}

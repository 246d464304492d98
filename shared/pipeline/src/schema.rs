//! The JSON Schema of the file, for editors, from the rows of [`crate::shape`]. Draft 7, which editors' YAML plug-ins know
//! best.

use serde_json::{Map, Value as Json, json};

use crate::{
    function::FUNCTION,
    kinds::{KINDS, Kind},
    pipeline::PIPELINE,
    shape::{Field, Form, Mapping, Presence, Shape},
    types,
};

/// The schema of the whole file.
pub(crate) fn json_schema() -> Json {
    let mut schema = of_mapping(&PIPELINE);
    let mut definitions: Map<String, Json> =
        PIPELINE.all().iter().skip(1).map(|mapping| (mapping.name.to_owned(), of_mapping(mapping))).collect();
    definitions.insert("FieldType".to_owned(), field_type());
    definitions[FUNCTION.name]["allOf"] = KINDS.iter().map(of_kind).collect();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "millstream pipeline".into();
    schema["definitions"] = definitions.into();
    schema
}

fn of_mapping(mapping: &Mapping) -> Json {
    let mut schema = match mapping.form {
        Form::Fields => of_fields(mapping.fields.iter(), false.into()),
        Form::FieldsAndOthers(others) => of_fields(mapping.fields.iter(), of_field(others)),
        Form::OneField => json!({ "oneOf": mapping.fields.iter().map(of_only_field).collect::<Vec<_>>() }),
    };
    schema["description"] = mapping.doc.into();
    schema
}

fn of_fields<'a>(fields: impl Iterator<Item = &'a Field> + Clone, others: Json) -> Json {
    let required = fields.clone().filter(|field| matches!(field.presence, Presence::Required));
    let properties: Map<String, Json> = fields.clone().map(|field| (field.name.to_owned(), of_field(field))).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required.map(|field| field.name).collect::<Vec<_>>(),
        "additionalProperties": others,
    })
}

/// A field that is alone in its mapping, or a word.
fn of_only_field(field: &Field) -> Json {
    let mut schema = match field.shape {
        Shape::Nothing => json!({ "const": field.name }),
        _ => {
            let mut schema = of_fields(std::iter::once(field), false.into());
            schema["required"] = json!([field.name]);
            schema
        }
    };
    schema["description"] = field.doc.into();
    schema
}

fn of_field(field: &Field) -> Json {
    let mut schema = match of_shape(&field.shape) {
        // Draft 7 ignores what stands next to a `$ref`.
        reference if reference.get("$ref").is_some() => json!({ "allOf": [reference] }),
        schema => schema,
    };
    schema["description"] = field.doc.into();
    if let Presence::Default(default) = field.presence {
        schema["default"] = match field.shape {
            Shape::Integer(_) | Shape::Exact => default.parse::<i64>().map_or(default.into(), Json::from),
            Shape::Boolean => (default == "true").into(),
            _ => default.into(),
        };
    }
    schema
}

fn of_shape(shape: &Shape) -> Json {
    match shape {
        Shape::Nothing => Json::Bool(false),
        Shape::Text => json!({ "type": "string" }),
        Shape::Pattern(pattern, _) => json!({ "type": "string", "pattern": pattern() }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer(range) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
        Shape::PositiveUpTo(most) => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": most }),
        Shape::Exact => {
            either(&[json!({ "type": "number" }), json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$" })])
        }
        Shape::Choice(words) => json!({ "type": "string", "enum": words() }),
        Shape::Duration(_) => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" }),
        Shape::Bytes(range) => either(&[
            of_shape(&Shape::Integer(range.clone())),
            json!({ "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB)?$" }),
        ]),
        Shape::FieldType => json!({ "$ref": "#/definitions/FieldType" }),
        Shape::Mapping(mapping) => json!({ "$ref": format!("#/definitions/{}", mapping.name) }),
        Shape::Named(shape) => json!({ "type": "object", "additionalProperties": of_shape(shape) }),
        Shape::List(shape, count) => {
            let mut schema = json!({ "type": "array", "items": of_shape(shape), "minItems": count.start() });
            if *count.end() < usize::MAX {
                schema["maxItems"] = (*count.end()).into();
            }
            schema
        }
        Shape::Either(shapes) => either(&shapes.iter().map(of_shape).collect::<Vec<_>>()),
    }
}

fn either(schemas: &[Json]) -> Json {
    json!({ "anyOf": schemas })
}

/// A scalar type, a mapping of fields, or a list with the one type of its elements.
fn field_type() -> Json {
    let scalar = format!("{}; each also with ` not null`.", types::TYPES.join(", "));
    json!({
        "description": "A type with an optional ` not null`, a mapping of fields, or a list with the one type of its elements.",
        "anyOf": [
            { "type": "string", "pattern": types::TYPE_PATTERN, "description": scalar },
            {
                "type": "object",
                "additionalProperties": { "$ref": "#/definitions/FieldType" },
                "description": "An object with fields of its own.",
            },
            {
                "type": "array",
                "items": { "$ref": "#/definitions/FieldType" },
                "minItems": 1,
                "maxItems": 1,
                "description": "A list; the one element is the type of all.",
            },
        ],
    })
}

/// The fields that a function of this kind must have, and those that it can't have.
fn of_kind(kind: &Kind) -> Json {
    let names = || FUNCTION.fields.iter().map(|field| field.name);
    let refused = names().filter(|name| kind.refusal(name).is_some());
    let refused: Map<String, Json> = refused.map(|name| (name.to_owned(), false.into())).collect();
    let required: Vec<&str> = names().filter(|name| kind.requires(name)).collect();
    let mut then = json!({ "required": required, "properties": refused });
    let one_of = kind.requires_one_of();
    if !one_of.is_empty() {
        then["oneOf"] = one_of.iter().map(|name| json!({ "required": [name] })).collect();
    }
    json!({ "if": { "properties": { "uses": { "const": kind.name } } }, "then": then })
}

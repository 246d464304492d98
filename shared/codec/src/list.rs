use crate::scan::Scanner;

/// The items of a list in a JSON text, each as it stands there. `path` leads to the list, name by name from the outside; it is
/// empty if the text itself is the list. The whole text must be one JSON value. Where a name comes twice, the last one counts.
///
/// ```
/// use millstream_codec::list_items;
///
/// let text = r#"{"data": {"items": [{"a": 1.10}, 2]}}"#;
/// assert_eq!(list_items(text, &["data", "items"]), Ok(vec![r#"{"a": 1.10}"#, "2"]));
/// assert_eq!(list_items("{}", &["data"]), Err("there is no list at `data`".to_owned()));
/// ```
///
/// # Errors
/// Why the list is missing, with a byte position and without any of the text.
pub fn list_items<'a>(text: &'a str, path: &[&str]) -> Result<Vec<&'a str>, String> {
    let mut json = Scanner::new(text);
    let mut items = None;
    walk(&mut json, text, path, &mut items).and_then(|()| json.end()).map_err(|problem| problem.to_string())?;
    items.ok_or_else(|| match path {
        [] => "it is not a list".to_owned(),
        path => format!("there is no list at `{}`", path.join(".")),
    })
}

/// Is the text one JSON value?
///
/// # Errors
/// Why not, with a byte position and without any of the text.
pub fn check_json(text: &str) -> Result<(), String> {
    let mut json = Scanner::new(text);
    json.skip().and_then(|()| json.end()).map_err(|problem| problem.to_string())
}

type Walked = Result<(), crate::problem::Problem>;

fn walk<'a>(json: &mut Scanner<'_>, text: &'a str, path: &[&str], items: &mut Option<Vec<&'a str>>) -> Walked {
    match (path, json.peek()) {
        ([], Some(b'[')) => {
            let mut found = Vec::new();
            json.list(|json| {
                json.peek();
                let start = json.position();
                json.skip()?;
                found.extend(text.get(start..json.position()));
                Ok(())
            })?;
            *items = Some(found);
            Ok(())
        }
        ([name, rest @ ..], Some(b'{')) => json.object(|json, member| {
            if member != *name {
                return json.skip();
            }
            *items = None;
            walk(json, text, rest, items)
        }),
        _ => json.skip(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_the_bytes_that_stand_there() {
        let text = " { \"a\" : [ ] , \"b\":{\"c\" : [ {\"x\": [1, 2]} ,\"é]\" , -0.10e5,null ]}, \"b2\": [3]} ";
        assert_eq!(list_items(text, &["b", "c"]), Ok(vec!["{\"x\": [1, 2]}", "\"é]\"", "-0.10e5", "null"]));
        assert_eq!(list_items(text, &["a"]), Ok(Vec::new()));
        assert_eq!(list_items("[1,[2]]", &[]), Ok(vec!["1", "[2]"]));
        assert_eq!(list_items(r#"{"\u0061":[1],"a":[2]}"#, &["a"]), Ok(vec!["2"]), "the last one counts");
    }

    #[test]
    fn what_is_not_there_or_not_json_is_said() {
        let fails = |text: &str, path: &[&str]| list_items(text, path).unwrap_err();
        assert_eq!(fails("{}", &[]), "it is not a list");
        for text in ["{}", "[]", "5", r#"{"a":{"b":{}}}"#, r#"{"a":[1]}"#, r#"{"a":{"b":[1]},"a":5}"#] {
            assert_eq!(fails(text, &["a", "b"]), "there is no list at `a.b`", "{text}");
        }
        for text in ["", "[1", "[1,]", "[1] x", "<html>", "[01]", "[secret]"] {
            let (said, checked) = (fails(text, &[]), check_json(text).unwrap_err());
            assert!(said.starts_with("not JSON: ") && !said.contains("secret") && checked == said, "{text}: {said}");
        }
        assert!(fails(&"[".repeat(10_000), &[]).contains("nested deeper"));
        assert_eq!(check_json(" {\"a\":[1]} "), Ok(()));
    }
}

use std::path::PathBuf;

use super::*;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines").join(name).join("pipeline.yaml")
}

#[tokio::test]
async fn the_shipped_pipelines_have_no_mistakes() {
    for (name, functions) in [("bank", 3), ("stocks", 2)] {
        let file = shipped(name);
        let (plans, mistakes) = plans(&Pipeline::load(&file).unwrap()).await;
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(plans.len(), functions, "{name}");
    }
}

#[tokio::test]
async fn a_plan_shows_keys_types_and_rules() {
    let file = shipped("bank");
    let (plans, _) = plans(&Pipeline::load(&file).unwrap()).await;
    let flow = plans.iter().find(|plan| plan.name == "flow").unwrap();
    console::set_colors_enabled(false);
    let lines = flow.lines();
    assert_eq!(lines[0], "flow: transaction → postgres.transaction_flow");
    for (at, words) in
        [(2, ["curr_time", "timestamp"]), (3, ["branch_name", "string"]), (4, ["currency_code", "string"])]
    {
        let line: Vec<&str> = lines[at].split_whitespace().collect();
        assert!(line[..2] == words && line.last() == Some(&"key"), "{line:?}");
    }
    assert!(lines[5].contains("decimal(") && lines[5].ends_with("merged by sum"), "{lines:?}");
    assert_eq!(flow.json()["table"]["keys"], json!(["curr_time", "branch_name", "currency_code"]));
}

#[test]
fn rules_are_shown_in_words() {
    let order = || "_order".to_owned();
    let named = |name: &str| name.to_owned();
    let rules = [
        (Merge::Sum, "merged by sum"),
        (Merge::First { order: order() }, "earliest by event time"),
        (Merge::Last { order: order() }, "latest by event time"),
        (Merge::Mean { count: named("n") }, "mean of `n` values"),
        (Merge::SquaredDifferences { count: named("n"), mean: named("m") }, "squared differences from `m`"),
    ];
    for (merge, words) in rules {
        assert_eq!(rule(&Role::State(merge)), words);
    }
}

#[tokio::test]
async fn wrong_sql_is_reported_with_its_place() {
    let file = shipped("bank");
    let text = std::fs::read_to_string(&file).unwrap().replace("sum(amount)", "sum(amuont)");
    let (plans, mistakes) = plans(&Pipeline::parse(&text, &file).unwrap()).await;
    assert_eq!((plans.len(), mistakes.len()), (2, 1));
    let line = text.lines().position(|line| line.contains("amuont")).unwrap() + 1;
    assert_eq!(mistakes[0].line, line, "{}", mistakes[0]);
}

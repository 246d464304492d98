use millstream_assembly::{RedriveOptions, Redrove, Systems};
use millstream_pipeline::Pipeline;
use serde_json::json;

use crate::{
    Failure, RedriveArgs,
    commands::progress::Progress,
    context::{Context, named},
    numbers::counted,
};

/// `millstream dead-letters redrive FUNCTION`
pub(super) async fn redrive(
    context: &Context,
    pipeline: &Pipeline,
    systems: &Systems,
    args: &RedriveArgs,
) -> Result<(), Failure> {
    let (name, declared) = named(pipeline, &args.function)?;
    if declared.reading().is_none() {
        return Err(Failure::Usage(format!("`{name}` reads no topic, so it has no dead letters")));
    }
    let options = RedriveOptions { only: args.only.clone(), rate: args.rate };
    if args.dry_run {
        let planned = systems.plan_redrive(pipeline, name, &options).await?;
        return match context.json {
            true => context.say_json(&json!({
                "function": name, "chosen": planned.chosen, "unsettled": planned.unsettled,
                "others": planned.others,
            })),
            false => planned_lines(name, &planned).iter().try_for_each(|line| context.say(line)),
        };
    }
    let done = {
        let mut progress = Progress::new(context, name.to_owned());
        systems.redrive(pipeline, name, &options, &mut |tried, total| progress.tell(tried, total)).await?
    };
    if context.json {
        return context.say_json(&json!({
            "function": name, "redriven": done.brought_in, "refused": done.refused, "unsettled": done.unsettled,
            "others": done.others,
        }));
    }
    done_lines(name, &done).iter().try_for_each(|line| context.say(line))
}

fn planned_lines(name: &str, planned: &Redrove) -> Vec<String> {
    let mut lines = vec![format!("{} of `{name}` would be redriven", letters(planned.chosen))];
    lines.extend(rest(planned));
    lines.push("nothing was changed".to_owned());
    lines
}

fn done_lines(name: &str, done: &Redrove) -> Vec<String> {
    let mut lines = vec![format!("{} of `{name}` redriven", letters(done.brought_in))];
    if done.refused > 0 {
        lines.push(format!(
            "{} refused again: `millstream dead-letters list -f {name}` says why",
            letters(done.refused)
        ));
    }
    let taken = done.chosen.saturating_sub(done.brought_in + done.refused);
    if taken > 0 {
        lines.push(format!("{} taken over by another redrive, or no longer there", letters(taken)));
    }
    lines.extend(rest(done));
    lines
}

fn rest(redrove: &Redrove) -> Vec<String> {
    let mut lines = Vec::new();
    if redrove.others > 0 {
        lines.push(format!(
            "{} left out: `--where`, or a topic that the function no longer reads",
            letters(redrove.others)
        ));
    }
    if redrove.unsettled > 0 {
        lines.push(format!("{} in flight: the function has not passed their records yet", letters(redrove.unsettled)));
    }
    lines
}

fn letters(count: u64) -> String {
    counted(count, "dead letter")
}

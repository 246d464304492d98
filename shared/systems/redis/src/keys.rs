//! What the keys are called. Braces name the part that decides on which node of a cluster a key is: all that one script
//! touches has the same.

use millstream_core::TopicPartition;

/// The field of the row's position, beside its columns.
pub(crate) const TOPIC: &str = "_topic";
pub(crate) const GENERATION: &str = "_generation";
pub(crate) const PARTITION: &str = "_partition";
pub(crate) const TERM: &str = "_term";
/// When the fence was created under which an entry was appended.
pub(crate) const FENCE: &str = "_fence";

/// The prefix of what is not a table's rows; no table may be called so.
pub(crate) const OWN: &str = "millstream";

/// What begins the name of a fence among the fields of its function.
const AT: &str = "at:";

/// The newest row of an entity.
pub(crate) fn entity(table: &str, entity: &[u8]) -> Vec<u8> {
    [table.as_bytes(), b":{", entity, b"}"].concat()
}

/// What a reader keeps of an entity: beside what the function writes.
pub(crate) fn aside(table: &str, entity: &[u8]) -> Vec<u8> {
    [table.as_bytes(), b":aside:{", entity, b"}"].concat()
}

/// The pattern of the keys of all entities of a table.
pub(crate) fn entities(table: &str) -> String {
    let mut pattern = String::with_capacity(table.len() + 4);
    for letter in table.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push_str(":{*}");
    pattern
}

/// The rows of a partition, in a table without entities.
pub(crate) fn stream(table: &str, partition: &TopicPartition) -> String {
    format!("{table}:{{{partition}}}")
}

/// What is known of a table: its columns and its owner.
pub(crate) fn table(table: &str) -> String {
    format!("{OWN}:{{{table}}}:table")
}

/// What is known of a function: its term, its table and the names of its fences.
pub(crate) fn function(function: &str) -> String {
    format!("{OWN}:{{{function}}}:function")
}

/// A fence. The name of a topic has no slash, so it is no other key.
pub(crate) fn fence(function: &str, partition: &TopicPartition) -> String {
    format!("{OWN}:{{{function}}}:{partition}")
}

/// The field of a function that names one of its fences.
pub(crate) fn fence_field(partition: &TopicPartition) -> String {
    format!("{AT}{partition}")
}

/// The partition of such a field; none for the other fields.
pub(crate) fn partition_of(field: &str) -> Option<TopicPartition> {
    let (rest, partition) = field.strip_prefix(AT)?.rsplit_once('/')?;
    let (topic, generation) = rest.rsplit_once('/')?;
    Some(TopicPartition::new(topic, generation.parse().ok()?, partition.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_names_its_partition() {
        for partition in [TopicPartition::new("a.b-c", 3, 7), TopicPartition::new("t", 1, -1)] {
            assert_eq!(partition_of(&fence_field(&partition)), Some(partition));
        }
        assert_eq!(partition_of("term"), None);
        assert_eq!(partition_of("at:x"), None);
    }

    #[test]
    fn a_pattern_means_the_name_itself() {
        assert_eq!(entities("a*b[c]"), "a\\*b\\[c\\]:{*}");
        assert_eq!(entity("t", b"\xff}"), b"t:{\xff}}");
    }
}

use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Fence, Replace, Replaced, Replacement, Result, Sink as _, TopicPartition, WHOLE_TOPIC, reached_text,
};

use super::{Contents, MemorySink};

#[async_trait]
impl Replace for MemorySink {
    async fn rehearse(&self, _: &Replacement) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn take_place(&self, replacement: &Replacement, _: &dyn CatchUp) -> Result<Replaced> {
        {
            let mut contents = self.store.contents.lock().await;
            let (own, public) = (self.table.public_name(), replacement.table.public_name());
            let is_ours = contents.owners.get(own).is_some_and(|record| record.owner.function == self.function);
            if !is_ours || contents.owners.get(public) != replacement.record.as_ref() {
                return Ok(Replaced::Changed);
            }
            let reached = fences_of(&contents, &self.function);
            if replacement.is_behind(&fences_of(&contents, replacement.before()), &reached) {
                return Ok(Replaced::Behind);
            }
            let (to, name) = (&replacement.owner.function, &replacement.table.name);
            contents.fences.retain(|place, _| place.0 != *replacement.before() && place.0 != *to);
            let moved: Vec<_> = contents.fences.extract_if(.., |place, _| place.0 == self.function).collect();
            let moved =
                moved.into_iter().map(|((.., partition), fence)| ((to.clone(), name.clone(), partition), fence));
            contents.fences.extend(moved.collect::<Vec<_>>());
            if let Some(table) = contents.tables.remove(&self.table.name) {
                contents.tables.insert(name.clone(), table);
            }
            if let Some(record) = contents.owners.get_mut(own) {
                record.owner.declaration = reached_text(&reached);
                record.term += 1;
            }
        }
        let place = self.store.sink(&replacement.owner.function, replacement.table.clone());
        let claimed = place.claim(&replacement.owner, &Claim::Rebuild(replacement.record.clone())).await?;
        Ok(claimed.map_or(Replaced::Changed, Replaced::Done))
    }

    async fn discard(&self) -> Result<()> {
        let mut contents = self.store.contents.lock().await;
        contents.fences.retain(|place, _| place.0 != self.function);
        contents.owners.remove(self.table.public_name());
        contents.tables.remove(&self.table.name);
        Ok(())
    }
}

fn fences_of(contents: &Contents, function: &str) -> Vec<(TopicPartition, Fence)> {
    let own = contents.fences.iter();
    let own = own.filter(|((of, _, at), _)| of == function && at.partition != WHOLE_TOPIC);
    own.map(|((.., partition), fence)| (partition.clone(), fence.clone())).collect()
}

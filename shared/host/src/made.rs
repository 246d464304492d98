/// What came of a call of [`crate::Make::make`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Records of this call that the topic has acknowledged.
    pub acknowledged: u64,
    /// If there are none, why that is a failure; `None` when there was nothing to send, as when an API has nothing new.
    pub none_because: Option<String>,
}

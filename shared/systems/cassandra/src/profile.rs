use scylla::statement::Consistency;

/// Which server speaks the Cassandra API, and what it takes. What is the same for all: reads and writes at LOCAL_QUORUM,
/// compare-and-swap at LOCAL_SERIAL, and no batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Apache Cassandra and what is compatible with it.
    #[default]
    Cassandra,
    /// Azure Cosmos DB for Apache Cassandra, with one write region: with several it has no compare-and-swap.
    Cosmos,
    /// Amazon Keyspaces.
    Keyspaces,
}

impl Profile {
    /// All names, as the setting has them.
    pub(crate) const NAMES: [&'static str; 3] = ["cassandra", "cosmos", "keyspaces"];

    pub(crate) fn of(name: &str) -> Self {
        match name {
            "cosmos" => Self::Cosmos,
            "keyspaces" => Self::Keyspaces,
            _ => Self::Cassandra,
        }
    }

    /// Does a write's timestamp say which of two rows is newer? Keyspaces takes only those from two days ago to five minutes
    /// ahead: there, the newest row of an entity is kept by a compare-and-swap.
    pub(crate) fn takes_writetimes(self) -> bool {
        self != Self::Keyspaces
    }

    /// How a fence is read. Cassandra finishes a compare-and-swap that was interrupted. Keyspaces refuses LOCAL_SERIAL, and
    /// both services read what was written last.
    pub(crate) fn fence_reads(self) -> Consistency {
        if self == Self::Cassandra { Consistency::LocalSerial } else { Consistency::LocalQuorum }
    }

    /// Do all nodes know of a table when the statement that creates it has returned, and can the driver ask them?
    pub(crate) fn agrees_on_schema(self) -> bool {
        self == Self::Cassandra
    }

    /// Does a new table take a while, of which `system_schema_mcs.tables` tells?
    pub(crate) fn creates_later(self) -> bool {
        self == Self::Keyspaces
    }

    /// Are connections encrypted unless a setting says otherwise? The services take no others.
    pub(crate) fn is_encrypted(self) -> bool {
        self != Self::Cassandra
    }

    /// What follows the definition of a new table. Cosmos keeps timestamps by row otherwise, and advises compare-and-swap only
    /// for tables with these.
    pub(crate) fn table_options(self) -> &'static str {
        match self {
            Self::Cosmos => {
                " WITH cosmosdb_cell_level_timestamp=true AND cosmosdb_cell_level_timestamp_tombstones=true \
                 AND cosmosdb_cell_level_timetolive=true"
            }
            Self::Cassandra | Self::Keyspaces => "",
        }
    }

    /// The most bytes of a row. Cassandra takes half a segment of its commit log in one write (16 MiB by default).
    pub(crate) fn max_row_bytes(self) -> usize {
        match self {
            Self::Cassandra => 8 << 20,
            Self::Cosmos => 2_000_000,
            Self::Keyspaces => 1_000_000,
        }
    }

    /// The most bytes of a partition key, which an entity is. CQL itself has a length of two bytes for it.
    pub(crate) fn max_key_bytes(self) -> usize {
        match self {
            Self::Cassandra => u16::MAX.into(),
            Self::Cosmos | Self::Keyspaces => 2_048,
        }
    }
}

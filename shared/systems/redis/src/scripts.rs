//! The scripts: each is one atomic step over the keys of one hash slot. Their texts are in `lua/`.

use std::sync::LazyLock;

use redis::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!(include_str!("lua/above.lua"), include_str!($file))));)+
    };
}

scripts! {
    NEWEST = "lua/newest.lua",
    APPEND = "lua/append.lua",
    CREATE = "lua/create.lua",
    LOOK = "lua/look.lua",
    MOVE = "lua/move.lua",
    TERM = "lua/term.lua",
    CLAIM = "lua/claim.lua",
    WRITTEN = "lua/written.lua",
    READ = "lua/read.lua",
    KEEP = "lua/keep.lua",
}

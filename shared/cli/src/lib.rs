//! The millstream command.

//! The people of the lab: real daemons, each in its namespace, and plugins at them that the lab plays itself.
//!
//! Control and plugin sockets are files, so they are reached from outside a namespace, and nothing of the lab travels over the networks that
//! it judges.

mod daemon;
mod plugin;
mod world;

pub use self::daemon::{Daemon, Home, Path, Program};
pub use self::plugin::{Plugin, echo_back};
pub use self::world::{Known, Person, World};

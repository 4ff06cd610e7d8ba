//! The echo plugin as a program of its own: see the library beside it.

fn main() -> anyhow::Result<()> {
    p2pos_plugin_echo::run()
}

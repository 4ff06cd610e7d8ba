//! The command line's grammar. What the words do stands in the sibling modules.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Lets your programs talk to other people's programs, privately, with no server in the middle.
#[derive(Debug, Parser)]
#[command(
    name = "p2pos",
    version,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 daemon not running, 4 needs approval, 5 not found, \
                  6 timeout.\nData goes to stdout, words to stderr. First steps: p2pos demo, then p2pos up."
)]
pub(crate) struct CommandLine {
    /// Where key, contacts and plugins' data lie [env: P2POS_DATA_DIR] [default: the platform's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON for programs: documents named by their schema, errors too (on stderr)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in this terminal until Ctrl-C
    Up(Up),
    /// Show how the daemon is, and whom it reaches how
    Status,
    /// Show who you are: what others need to reach you
    Id(Id),
    /// Keep the people you talk to
    #[command(subcommand, alias = "contact")]
    Contacts(Contacts),
    /// Run programs that talk to other people's
    #[command(subcommand, alias = "plugin")]
    Plugins(Plugins),
    /// Open a stream to a peer's plugin: stdin and stdout are the stream
    Dial(Dial),
    /// Measure round trips to a peer; needs no plugin
    Ping(Ping),
    /// Tell how a peer is reached and why: both routers, what was tried, what would make it direct
    Explain {
        /// Petname or PeerId
        peer: String,
    },
    /// Show what is known of your own network: UDP, IPv4 and IPv6, what your router does and what it said
    Netcheck,
    /// Relay for others, and be called through others' relays
    #[command(subcommand)]
    Relay(Relay),
    /// Read and change settings
    #[command(subcommand)]
    Config(Config),
    /// Watch two real daemons on this machine carry plugins' traffic, every byte checked
    Demo(Demo),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// UDP port that peers reach; wins over the setting network.port
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Stay in this terminal; the only way so far, and so the default
    #[arg(long, hide = true)]
    pub(crate) foreground: bool,
    /// End when stdin ends: for programs that start a daemon of their own
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Id {
    /// Show it as a QR code, too
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(subcommand)]
    pub(crate) command: Option<IdCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Print the 24 words that are your key: who has them is you
    Backup {
        /// Print them although stdout is no terminal
        #[arg(long)]
        yes: bool,
    },
    /// Become who the 24 words say; they are asked for, or read from stdin
    Restore,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Contacts {
    /// Add someone by PeerId
    Add(AddContact),
    /// List them
    List,
    /// Show one
    Show {
        /// Petname or PeerId
        who: String,
    },
    /// Give one another petname
    Rename {
        /// Petname or PeerId
        who: String,
        /// The new petname
        name: String,
    },
    /// Give one other addresses; none at all takes away those there are
    Address {
        /// Petname or PeerId
        who: String,
        /// Where they may be reached: HOST:PORT, or relay:PEERID@HOST:PORT/TOKEN as `p2pos relay status` shows them
        #[arg(value_name = "ADDRESS")]
        addresses: Vec<String>,
    },
    /// Say whether packets to and from one may go through relays: auto, or never, which means rather no connection
    Relay {
        /// Petname or PeerId
        who: String,
        /// auto or never
        #[arg(value_parser = ["auto", "never"])]
        relay: String,
    },
    /// Forget one
    Remove {
        /// Petname or PeerId
        who: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddContact {
    /// Their PeerId (p2p1q...), which they read with: p2pos id
    pub(crate) peer_id: String,
    /// Your own name for them
    #[arg(value_name = "NAME")]
    pub(crate) petname: Option<String>,
    /// The same as NAME
    #[arg(long = "name", value_name = "NAME", conflicts_with = "petname")]
    pub(crate) name_option: Option<String>,
    /// Where they may be reached: HOST:PORT, or relay:PEERID@HOST:PORT/TOKEN; may be given several times
    #[arg(long = "addr", value_name = "ADDRESS")]
    pub(crate) addresses: Vec<String>,
    /// Whether packets to and from them may go through relays: auto, or never, which means rather no connection
    #[arg(long, value_name = "auto|never", default_value = "auto", value_parser = ["auto", "never"], hide_possible_values = true)]
    pub(crate) relay: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plugins {
    /// List them
    List,
    /// Show everything about one: what it asks, what holds it, how it last ended
    Info {
        /// Its id
        plugin: String,
    },
    /// Start, and wait until they are ready
    Start(Several),
    /// Stop, and wait until their processes are gone
    Stop(Several),
    /// Stop, then start
    Restart(Several),
    /// Show what a plugin asks for, and let it run if you agree; one that runs is restarted if its files have changed
    Enable {
        /// Its id
        plugin: String,
        /// Agree without being asked
        #[arg(long, short)]
        yes: bool,
    },
    /// Take that back
    Disable {
        /// Its id
        plugin: String,
    },
    /// Show what one wrote and what happened to it, also of one that is known no more
    Logs(Logs),
    /// Run a plugin of your own in this terminal, with token and environment set; its Log frames and the daemon's complaints
    /// appear on stderr
    Run {
        /// Its directory, with plugin.toml
        dir: PathBuf,
        /// Another command than the manifest's
        #[arg(last = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Check a plugin's manifest, with line and column; needs no daemon, and ends with 1 if it is wrong
    Check {
        /// Its directory, with plugin.toml
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Several {
    /// Plugin ids
    #[arg(required = true, value_name = "PLUGIN")]
    pub(crate) plugins: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Its id
    pub(crate) plugin: String,
    /// Go on with every new line until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many of the newest lines first
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub(crate) lines: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Dial {
    /// Petname or PeerId
    pub(crate) peer: String,
    /// What to open: /echo/1
    pub(crate) protocol: String,
    /// Give up after this many seconds without an answer
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) timeout: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// Petname or PeerId
    pub(crate) peer: String,
    /// How many
    #[arg(long, short, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    /// Pause between them, in milliseconds
    #[arg(long, short, default_value_t = 1_000, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) interval: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Show for whom you relay and how much, and at which relays you can be called, with the address to give to friends
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print one setting, or all of them with where each comes from
    Get {
        /// network.port, relay.mode, ...
        key: Option<String>,
    },
    /// Change one; the file's comments stay
    Set {
        /// network.port, relay.mode, ...
        key: String,
        /// Its new value
        value: String,
    },
    /// Check the file
    Check,
    /// Print where the file lies
    Path,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many daemons
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=3))]
    pub(crate) peers: u8,
    /// How much to move in bulk: 64MiB, 1GiB, 5000
    #[arg(long, default_value = "1GiB", value_name = "SIZE", value_parser = size)]
    pub(crate) bytes: u64,
    /// Leave the daemons running and say how to talk to them
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Bytes of `64MiB`, `1GiB`, `5000`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}; use KiB, MiB or GiB")),
    };
    let number: u64 =
        digits.parse().map_err(|_| "it takes a number, with KiB, MiB or GiB if you like".to_owned())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| "it takes 1 byte to 16 EiB".to_owned())
}

impl CommandLine {
    /// The command's own words, for the beginning of an error: `plugins start`.
    pub(crate) fn words(&self) -> &'static str {
        match &self.command {
            Command::Up(_) => "up",
            Command::Status => "status",
            Command::Id(id) => match id.command {
                None => "id",
                Some(IdCommand::Backup { .. }) => "id backup",
                Some(IdCommand::Restore) => "id restore",
            },
            Command::Contacts(command) => match command {
                Contacts::Add(_) => "contacts add",
                Contacts::List => "contacts list",
                Contacts::Show { .. } => "contacts show",
                Contacts::Rename { .. } => "contacts rename",
                Contacts::Address { .. } => "contacts address",
                Contacts::Relay { .. } => "contacts relay",
                Contacts::Remove { .. } => "contacts remove",
            },
            Command::Plugins(command) => match command {
                Plugins::List => "plugins list",
                Plugins::Info { .. } => "plugins info",
                Plugins::Start(_) => "plugins start",
                Plugins::Stop(_) => "plugins stop",
                Plugins::Restart(_) => "plugins restart",
                Plugins::Enable { .. } => "plugins enable",
                Plugins::Disable { .. } => "plugins disable",
                Plugins::Logs(_) => "plugins logs",
                Plugins::Run { .. } => "plugins run",
                Plugins::Check { .. } => "plugins check",
            },
            Command::Dial(_) => "dial",
            Command::Ping(_) => "ping",
            Command::Explain { .. } => "explain",
            Command::Netcheck => "netcheck",
            Command::Relay(Relay::Status) => "relay status",
            Command::Config(command) => match command {
                Config::Get { .. } => "config get",
                Config::Set { .. } => "config set",
                Config::Check => "config check",
                Config::Path => "config path",
            },
            Command::Demo(_) => "demo",
            Command::Completions { .. } => "completions",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("5000"), Ok(5000));
        for wrong in ["", "GiB", "0", "1TB", "99999999999G", "-1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plugin_under_development_may_be_run_by_another_command() {
        let line =
            CommandLine::try_parse_from(["p2pos", "plugins", "run", "dir", "--", "gdb", "--args", "x"])
                .unwrap();
        let Command::Plugins(Plugins::Run { command, .. }) = line.command else { panic!("{line:?}") };
        assert_eq!(command, ["gdb", "--args", "x"]);
    }
}

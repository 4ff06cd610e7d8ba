//! `lab stand`: sites to look at by hand, gone with Ctrl-C.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use p2pos_natlab::lab::Lab;
use p2pos_natlab::topology::Kind;

use super::{data, words};

#[derive(Debug, Args)]
pub(crate) struct StandArguments {
    /// Kinds of the sites; the same one may come twice
    #[arg(required = true, value_name = "KIND")]
    kinds: Vec<Kind>,
}

/// Builds them, says how to look, and waits for ever.
pub(crate) async fn run(arguments: &StandArguments) -> Result<ExitCode> {
    let lab = Lab::new()?;
    let landmark = lab.landmark("landmark")?;
    let mut sites = Vec::new();
    for (number, kind) in arguments.kinds.iter().enumerate() {
        let site = lab.site(&kind.site(&format!("{kind}{number}")))?;
        let routers: Vec<_> = site.routers().iter().map(|router| router.namespace.name()).collect();
        let outside = site.outside_v4().or_else(|| site.host().v6);
        let outside = outside.map_or_else(|| "nothing".to_owned(), |ip| ip.to_string());
        data(&format!(
            "{kind}: host {}, routers {routers:?}, seen as {outside}",
            site.host().namespace.name()
        ));
        sites.push(site);
    }
    data(&format!("a public host: {} at {}", landmark.namespace.name(), landmark.v4[0]));
    words("look around with `ip netns exec NAME ...`; Ctrl-C removes everything");
    std::future::pending::<()>().await;
    Ok(ExitCode::SUCCESS)
}

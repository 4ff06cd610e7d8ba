//! `lab prove`: a table of what two judges say about each NAT; fails where one of them disagrees with the name.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use p2pos_natlab::judge::{self, Proof};
use tokio::task::spawn_blocking;

use super::{Kinds, data, kinds_or_all, words};

#[derive(Debug, Args)]
pub(crate) struct ProveArguments {
    /// Only these kinds, with commas between
    #[arg(long, value_name = "KINDS")]
    kinds: Option<Kinds>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Proves, and prints what was found.
pub(crate) async fn run(arguments: ProveArguments) -> Result<ExitCode> {
    let kinds = kinds_or_all(arguments.kinds);
    let begun = Instant::now();
    let proofs = spawn_blocking(move || judge::prove(&kinds)).await??;
    if arguments.json {
        data(&serde_json::to_string_pretty(&proofs)?);
    } else {
        data(&table(&proofs));
    }
    let wrong = proofs.iter().filter(|proof| !proof.objections.is_empty()).count();
    words(&format!(
        "{} kinds, {} as intended, {wrong} not, in {:.1} s",
        proofs.len(),
        proofs.len() - wrong,
        begun.elapsed().as_secs_f64()
    ));
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(proofs: &[Proof]) -> String {
    let mut lines = vec![format!("{:20} {:34} {:12} {}", "kind", "our probe", "coturn", "verdict")];
    for proof in proofs {
        let coturn = proof.coturn.map_or_else(|| "cannot see".to_owned(), |opinion| opinion.to_string());
        let verdict = if proof.objections.is_empty() {
            "as intended".to_owned()
        } else {
            format!("WRONG: {}", proof.objections.join("; "))
        };
        lines.push(format!("{:20} {:34} {coturn:12} {verdict}", proof.kind, proof.probed.to_string()));
    }
    lines.join("\n")
}

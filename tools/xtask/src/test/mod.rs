//! `cargo xtask test`: everything that can show that p2pOS works, on a machine that may have nothing but Rust, a C compiler and
//! Python. Owns the order of the steps; each kind of test has its file.

mod conformance;
mod demo;
pub(crate) mod machine;
mod plugins;
pub(crate) mod python;
mod releases;
mod rust;
pub(crate) mod sdk_c;

use anyhow::Result;

pub(crate) use self::demo::DemoSize;
use crate::lab;
use crate::steps::Steps;

/// Sets up and runs all tests, or those steps whose name contains `only`.
pub(crate) fn run(only: Option<&str>) -> Result<bool> {
    let mut steps = Steps::new(only);
    steps.set_up("machine", machine::prepare);
    add_steps(&mut steps, DemoSize::Short);
    Ok(steps.finish())
}

/// The test steps, without the set-up of the machine.
pub(crate) fn add_steps(steps: &mut Steps, size: DemoSize) {
    steps.run("rust: build", rust::build);
    steps.run("rust: units", rust::units);
    steps.run("rust: generator", rust::generator);
    steps.run("rust: whole programs", rust::whole_programs);
    steps.run("rust: doc examples", rust::doc_examples);
    python::add_steps(steps);
    plugins::add_steps(steps);
    sdk_c::add_steps(steps);
    conformance::add_steps(steps);
    releases::add_steps(steps);
    steps.run("demo: build", demo::build);
    steps.run("demo: run", || demo::run(size));
    lab::add_steps(steps);
}

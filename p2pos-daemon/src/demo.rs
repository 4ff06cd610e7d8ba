//! stub
use p2pos_control::DemoReport;
pub(crate) fn render(_report: &DemoReport) -> String {
    String::new()
}

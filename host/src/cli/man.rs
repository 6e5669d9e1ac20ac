//! `agenticore man`: the manual page, one section for every command.

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::Cli;
use super::context::Context;
use super::exit::ExitCode;

pub(super) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let man = Man::new(sub.clone());
        let name = sub.get_bin_name().unwrap_or_else(|| sub.get_name());
        page.extend(format!(".SH {}\n", name.to_uppercase()).bytes());
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    context.output.data(&String::from_utf8(page)?)?;
    Ok(ExitCode::Success)
}

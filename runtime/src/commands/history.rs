//! `history`: how an image was made.

use anyhow::{Context, Result};
use images::{Image, Selection};
use serde_json::json;

use super::{print, view};
use crate::{
    cli::HistoryArgs,
    output::{self, Column, Row},
    records::host::Host,
};

const COLUMNS: [Column; 5] = [
    Column { header: "IMAGE", field: "ID" },
    Column { header: "CREATED", field: "CreatedSince" },
    Column { header: "CREATED BY", field: "CreatedBy" },
    Column { header: "SIZE", field: "Size" },
    Column { header: "COMMENT", field: "Comment" },
];

/// What a template may name besides.
const CREATED_AT: Column = Column { header: "CREATED AT", field: "CreatedAt" };

/// `amphora history`.
pub(crate) fn history(host: &Host, args: &HistoryArgs) -> Result<u8> {
    let name = &args.image;
    let image = host.store.resolve(name, &Selection::default())?;
    let image = image.with_context(|| format!("no such image: {name} (amphora images lists them)"))?;
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    let mut columns = COLUMNS;
    if !args.human {
        columns[1] = CREATED_AT;
    }
    let headers = [COLUMNS.as_slice(), &[CREATED_AT]].concat();
    print(&output::list(format, &columns, &headers, &rows(host, &image, args))?)
}

/// Newest first. Only the last step made an image that is known.
fn rows(host: &Host, image: &Image, args: &HistoryArgs) -> Vec<Row> {
    let mut sizes = host.store.layer_sizes(image).into_iter();
    let steps = image.config.history().clone().unwrap_or_default();
    let mut rows: Vec<Row> = Vec::with_capacity(steps.len());
    for step in &steps {
        let size = if step.empty_layer().unwrap_or(false) { 0 } else { sizes.next().unwrap_or(0) };
        let created = step.created().as_deref().and_then(output::parse_rfc3339);
        let by = step.created_by().as_deref().unwrap_or_default();
        rows.push(
            json!({
                "ID": "<missing>",
                "CreatedSince": created.map_or_else(|| "N/A".to_owned(), view::ago),
                "CreatedAt": step.created().as_deref().unwrap_or("N/A"),
                "CreatedBy": view::ellipsis(&by.replace('\t', " "), 45, args.no_trunc),
                "Size": if args.human { output::size(size) } else { size.to_string() },
                "Comment": step.comment().as_deref().unwrap_or_default(),
            })
            .into(),
        );
    }
    if rows.is_empty() {
        let created = image.created.as_deref().unwrap_or("N/A");
        let size = host.store.unpacked_size(image);
        rows.push(
            json!({
                "CreatedSince": output::parse_rfc3339(created).map_or_else(|| "N/A".to_owned(), view::ago),
                "CreatedAt": created, "CreatedBy": "", "Comment": view::comment(image),
                "Size": if args.human { output::size(size) } else { size.to_string() },
            })
            .into(),
        );
    }
    rows.reverse();
    rows[0].fields["ID"] = view::image_id(image, args.no_trunc).into();
    rows
}

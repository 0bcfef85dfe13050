//! From a record of a WARC file to a document, or why it is not one.

use serde_json::{Map, Value};

use super::super::{Cause, Fault, FieldPaths, Limits, Raw, charset, html, metadata};
use super::header::{Header, media_type};
use super::http::Response;

/// Fields of a record besides those of its header: its text, and short names of two of the header.
pub(super) const OWN_FIELDS: [&str; 3] = [TEXT, URL, DATE];
const TEXT: &str = "text";
pub(super) const URL: &str = "url";
const DATE: &str = "date";
const HTML: [&str; 2] = ["text/html", "application/xhtml+xml"];

/// The fields of a recipe; if it names no id field, a document is named by its record id, or by its address if the record
/// lacks the field.
pub(super) fn with_defaults(fields: &FieldPaths) -> FieldPaths {
    let mut fields = fields.clone();
    fields.id.get_or_insert_with(|| "WARC-Record-ID".to_owned());
    fields
}

/// The name of a record without a document.
pub(super) fn name(header: &Header, fields: &FieldPaths) -> Option<String> {
    let field = match fields.id.as_deref()? {
        URL => "WARC-Target-URI",
        field => field,
    };
    header.get(field).or_else(|| address(header)).map(str::to_owned)
}

/// The document in a record with this block.
pub(super) fn document(
    header: &Header,
    block: &[u8],
    fields: &FieldPaths,
    limits: Limits,
) -> Result<Raw, Fault> {
    let kind = header.get("WARC-Type").unwrap_or_default().to_ascii_lowercase();
    let content_type = header.get("Content-Type").unwrap_or_default();
    let text = match kind.as_str() {
        "response" => response(header, content_type, block, limits)?,
        "resource" if HTML.contains(&media_type(content_type).as_str()) => page(block, content_type)?,
        "conversion" => match media_type(content_type).as_str() {
            "" | "text/plain" => {
                (std::str::from_utf8(block).map_err(|_| Cause::InvalidUtf8)?.to_owned(), None)
            }
            kind if HTML.contains(&kind) => page(block, content_type)?,
            _ => return Err(Cause::NotHtml.into()),
        },
        "resource" => return Err(Cause::NotHtml.into()),
        "warcinfo" => return Err(Cause::WarcInfo.into()),
        "request" => return Err(Cause::WarcRequest.into()),
        "metadata" => return Err(Cause::WarcMetadata.into()),
        "revisit" => return Err(Cause::WarcRevisit.into()),
        _ => return Err(Cause::WarcOther.into()),
    };
    let (text, guessed) = text;
    let mut object = Map::new();
    object.extend(header.fields.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))));
    let copy = |from: &str| header.get(from).map_or(Value::Null, Value::from);
    let url = address(header);
    if let (Some(id), Some(url)) = (fields.id.as_ref().filter(|id| header.get(id).is_none()), url) {
        object.insert(id.clone(), url.into());
    }
    object.insert(URL.to_owned(), url.map_or(Value::Null, Value::from));
    object.insert(DATE.to_owned(), copy("WARC-Date"));
    object.insert(TEXT.to_owned(), Value::String(text));
    let mut raw = Raw { guessed, ..fields.extract(&mut Value::Object(object), &[])? };
    // A date that the recipe does not use is no reason to refuse a page.
    if fields.metadata.date.is_none() {
        raw.metadata.date = header.get("WARC-Date").filter(|date| metadata::is_date(date)).map(str::to_owned);
    }
    if fields.metadata.url.is_none() {
        raw.metadata.url = url.map(str::to_owned);
    }
    Ok(raw)
}

/// The address of a record. wget writes it between angle brackets, as version 1.0 of the standard had it.
fn address(header: &Header) -> Option<&str> {
    header.get("WARC-Target-URI").map(|url| url.trim_start_matches('<').trim_end_matches('>'))
}

/// A text, and its encoding if guessed.
type Page = (String, Option<&'static str>);

/// The text of a page.
fn page(bytes: &[u8], content_type: &str) -> Result<Page, Cause> {
    let decoded = charset::decode(bytes, content_type, None);
    Ok((html::text(&decoded.text)?, decoded.guessed))
}

fn response(header: &Header, content_type: &str, block: &[u8], limits: Limits) -> Result<Page, Fault> {
    if media_type(content_type) != "application/http" {
        return match HTML.contains(&media_type(content_type).as_str()) {
            true => Ok(page(block, content_type)?),
            false => Err(Cause::NotHtml.into()),
        };
    }
    let response = Response::parse(block)?;
    if !(200..300).contains(&response.status) {
        return Err(Fault { measured: Some(response.status.into()), ..Cause::HttpStatus.into() });
    }
    let content_type = response.content_type.clone();
    let kind = match media_type(&content_type) {
        kind if kind.is_empty() => media_type(header.get("WARC-Identified-Payload-Type").unwrap_or_default()),
        kind => kind,
    };
    if !HTML.contains(&kind.as_str()) {
        return Err(Fault::new(Cause::NotHtml, kind));
    }
    let body = response.into_body(limits.max_doc_bytes)?;
    Ok(page(&body, &content_type)?)
}

//! The options for another table. No help shows them, since few need them; a configuration file names them in a table of its
//! own.

use clap::Args;

/// What the table and its columns are called.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names in the source")]
pub struct Names {
    /// The table of invoices
    #[arg(long, hide = true, env = "INVOICE_EXPORT_TABLE", value_name = "NAME", default_value = "t_invoice")]
    pub table: String,
    /// A unique column that is NOT NULL [default: the primary key]
    #[arg(long, hide = true, env = "INVOICE_EXPORT_ID_COLUMN", value_name = "NAME")]
    pub id_column: Option<String>,
    #[arg(long, hide = true, env = "INVOICE_EXPORT_TENANT_COLUMN", value_name = "NAME", default_value = "ftenant_id")]
    pub tenant_column: String,
    #[arg(long, hide = true, env = "INVOICE_EXPORT_COUNTRY_COLUMN", value_name = "NAME", default_value = "fcountry")]
    pub country_column: String,
    #[arg(long, hide = true, env = "INVOICE_EXPORT_DATE_COLUMN", value_name = "NAME", default_value = "fissue_date")]
    pub date_column: String,
    #[arg(long, hide = true, env = "INVOICE_EXPORT_NUMBER_COLUMN", value_name = "NAME", default_value = "finvoice_no")]
    pub number_column: String,
    #[arg(
        long,
        hide = true,
        env = "INVOICE_EXPORT_STATUS_COLUMN",
        value_name = "NAME",
        default_value = "fissue_status"
    )]
    pub status_column: String,
    #[arg(
        long,
        hide = true,
        env = "INVOICE_EXPORT_DOCUMENT_COLUMN",
        value_name = "NAME",
        default_value = "fext_field"
    )]
    pub document_column: String,
    #[arg(long, hide = true, env = "INVOICE_EXPORT_TIME_COLUMN", value_name = "NAME", default_value = "fupdate_time")]
    pub time_column: String,
    /// The status that makes a row an invoice
    #[arg(long, hide = true, env = "INVOICE_EXPORT_ISSUED_STATUS", value_name = "VALUE", default_value = "3")]
    pub issued_status: String,
    /// The zone in which a DATETIME column was written: an offset (+08:00), or a name that the server knows [default: the server's own]
    #[arg(long, hide = true, env = "INVOICE_EXPORT_TIME_ZONE", value_name = "ZONE")]
    pub time_zone: Option<String>,
}

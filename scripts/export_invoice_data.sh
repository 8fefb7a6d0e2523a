#!/bin/bash
# The drop-in for crontabs that call the old export script: same name, same variables, same lines,
# all on stdout, exit 0 or 1.
#
#   EXPORT_MODE=full|incremental   (default full)      DRY_RUN=true|false   (default false)
#   INVOICE_EXPORT_*               everything that `invoice-export run --help` names, above all
#                                  INVOICE_EXPORT_SOURCE; also MYSQL_PWD
#
# After every run the old state file is written too, for monitoring that reads it;
# INVOICE_EXPORT_MIRROR_LEGACY_STATE=false turns that off.
#
# They may stand in export_invoice_data.env beside this script, as NAME=value lines; what the
# environment says already wins. The output is ../context of the current folder, as before.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

read_settings() { # FILE
    local line name
    while IFS= read -r line || [ -n "$line" ]; do
        name=${line%%=*}
        case $line in
        '' | '#'*) ;;
        [A-Z]*=*) [ -n "${!name-}" ] || export "$name=${line#*=}" ;;
        *)
            echo "[ERROR] $1: 不是 NAME=value 格式: $line"
            exit 1
            ;;
        esac
    done <"$1"
}

find_program() {
    if [ -x "$here/invoice-export" ]; then
        echo "$here/invoice-export"
    else
        command -v invoice-export
    fi
}

[ ! -f "$here/export_invoice_data.env" ] || read_settings "$here/export_invoice_data.env"
if ! program=$(find_program); then
    echo "[ERROR] 找不到 invoice-export: 请将其放入 PATH 或 $here"
    exit 1
fi
export INVOICE_EXPORT_MIRROR_LEGACY_STATE="${INVOICE_EXPORT_MIRROR_LEGACY_STATE:-true}"
"$program" run --lang zh 2>&1 || exit 1

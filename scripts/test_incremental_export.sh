#!/bin/bash
# The eight checks that the old export script was accepted with, run with the drop-in on a private
# MariaDB (or on the one that INVOICE_EXPORT_SOURCE names), in a folder of its own.
# usage: scripts/test_incremental_export.sh
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
script=$here/export_invoice_data.sh
folder=$(mktemp -d)
passed=0 failed=0 number=0
rule="=========================================="

info() { echo "[INFO] $*"; }
success() { echo "[SUCCESS] $*"; }

check() { # TITLE NAME FUNCTION
    number=$((number + 1))
    echo
    echo "[TEST] 测试$number: $1"
    if "$3" >"$folder/log" 2>&1; then
        passed=$((passed + 1))
        success "✓ $2"
    else
        failed=$((failed + 1))
        echo "[ERROR] ✗ $2"
        sed 's/^/    /' "$folder/log"
    fi
}

tear_down() {
    [ -z "${own_server-}" ] || "$here/dev-db" stop >/dev/null
    rm -rf "$folder"
}

set_up() {
    local built
    if ! command -v invoice-export >/dev/null && [ ! -x "$here/invoice-export" ]; then
        built=$("$here/program") || exit 1
        PATH=${built%/*}:$PATH
    fi
    [ ! -x "$here/invoice-export" ] || PATH=$here:$PATH
    if [ -z "${INVOICE_EXPORT_SOURCE-}" ]; then
        own_server=yes
        export INVOICE_EXPORT_DEV_DB=$folder/dev-db
        "$here/dev-db" start >/dev/null || exit 1
        INVOICE_EXPORT_SOURCE=$("$here/dev-db" url)
        export INVOICE_EXPORT_SOURCE
    fi
    unset INVOICE_EXPORT_OUTPUT INVOICE_EXPORT_STATE_DIR INVOICE_EXPORT_MODE EXPORT_MODE DRY_RUN
    mkdir "$folder/work"
    cd "$folder/work" || exit 1
    output=$folder/context
    state_file=$output/.export_state/.last_export_time
}

files() { find "$output" -name '*.json' 2>/dev/null | wc -l; }

syntax() { bash -n "$script"; }

first_run() {
    EXPORT_MODE=incremental "$script" | tee /dev/stderr | grep -q '首次导出，基线时间: 1970-01-01 00:00:00' && [ "$(files)" -gt 0 ]
}

state_format() {
    cat "$state_file" &&
        ! grep -vqE '^[^|]+\|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\|[0-9]+\|SUCCESS$' "$state_file" &&
        [ "$(wc -l <"$state_file")" -eq "$(find "$output" -mindepth 1 -maxdepth 1 ! -name .export_state | wc -l)" ] &&
        invoice-export export-legacy-state - | diff "$state_file" -
}

nothing_new() {
    EXPORT_MODE=incremental "$script" | tee /dev/stderr | grep -q '无新增数据'
}

dry_run() {
    local before
    before=$(find "$output" -printf '%p %i %T@\n' | sort | sha256sum)
    DRY_RUN=true EXPORT_MODE=incremental "$script" || return 1
    [ "$before" = "$(find "$output" -printf '%p %i %T@\n' | sort | sha256sum)" ]
}

one_at_a_time() {
    mkdir "$output/.export_state/.export.lock"
    EXPORT_MODE=incremental "$script"
    local code=$?
    rmdir "$output/.export_state/.export.lock" && [ $code -eq 1 ]
}

full_run() {
    "$script" | tee /dev/stderr | grep -q '\[SUCCESS\] 全量导出完成!'
}

# The boundary moves on, so the file is written again; the old one is kept, but only one a day.
state_kept() {
    local before
    before=$(cat "$state_file")
    rm -f "$state_file".backup.*
    INVOICE_EXPORT_SAFETY_LAG=2m EXPORT_MODE=incremental "$script" || return 1
    [ "$before" != "$(cat "$state_file")" ] && [ "$before" = "$(cat "$state_file".backup.*)" ]
}

trap tear_down EXIT
set_up
info "$rule"
info 增量导出功能测试开始
info "$rule"
check '首次增量运行(应该导出所有数据)' 首次增量运行 first_run
check 状态文件创建和格式验证 状态文件格式 state_format
check 脚本语法检查 脚本语法检查 syntax
check 无新数据处理 无新数据处理 nothing_new
check DRY_RUN模式 DRY_RUN模式 dry_run
check 并发控制 并发控制 one_at_a_time
check 全量导出模式 全量导出模式 full_run
check 状态文件备份 状态文件备份 state_kept
echo
info "$rule"
info 测试结果汇总
info "$rule"
info "总测试数: $number"
success "通过: $passed"
info "失败: $failed"
if [ $failed -gt 0 ]; then
    echo "[ERROR] 有测试失败"
    exit 1
fi
success "$rule"
success 所有测试通过!
success "$rule"

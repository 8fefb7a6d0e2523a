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
# environment says already wins. Such a file is read, not run: `export`, blanks around the =, quotes, comments
# and Windows line ends mean what they mean in a shell, and ~/ without quotes is the home folder. Nothing else
# is expanded, and a line that could mean two things is refused with its number: a value with $, \, ; or quotes
# in it stands in single quotes. The output is ../context of the current folder, as before.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
declare -A from_file
# Characters that a shell and other readers of such files take differently.
doubtful='["'\''\\$`;]'
# Text in double quotes, and what follows it.
quoted='^"(([^"\\$`]|\\["\\$`])*)"(.*)$'
quote_it="请写在单引号中: NAME='...'"

trim() { # TEXT
    trimmed=${1#"${1%%[![:space:]]*}"}
    trimmed=${trimmed%"${trimmed##*[![:space:]]}"}
}

# Sets `value` to what the text behind the = means, or fails with the `reason` why that is not certain.
read_value() { # NAME TEXT
    local text=$2 rest='' in_quotes=yes
    case $text in
    "'"*"'"*)
        text=${text#?}
        value=${text%%"'"*} rest=${text#*"'"}
        ;;
    '"'*)
        reason="双引号没有配对，或其中有 \$、\` 或 \\；$quote_it"
        [[ $text =~ $quoted ]] || return
        value=${BASH_REMATCH[1]} rest=${BASH_REMATCH[3]}
        value=${value//\\\"/\"} value=${value//\\\$/\$} value=${value//\\\`/\`} value=${value//\\\\/\\}
        ;;
    *)
        in_quotes=
        trim "${text%%[[:space:]]#*}"
        value=$trimmed
        ;;
    esac
    reason="引号之后还有内容"
    [[ $rest =~ ^[[:space:]]*$ || $rest =~ ^[[:space:]]+# ]] || return
    reason="其中有引号、\$、\`、\\ 或 ;；$quote_it"
    [ -n "$in_quotes" ] || ! [[ $value =~ $doubtful || $value == '#'* ]] || return
    reason="其中有控制字符"
    ! [[ $value == *[[:cntrl:]]* ]] || return
    expand_home "$1"
}

# The ~ of a value is the home folder where a shell takes it for that.
expand_home() { # NAME
    reason="~ 只能写成不带引号的 ~/，或请写完整路径"
    case $in_quotes$value in
    yes'~' | yes'~/'*) [ "$1" = MYSQL_PWD ] ;;
    yes*) ;;
    '~' | '~/'* | *':~/'*)
        [ -n "${HOME-}" ] || return
        value=${value//:\~\//:$HOME/}
        value=${value/#\~/$HOME}
        ;;
    '~'*) return 1 ;;
    esac
}

# Fails with the `reason`. No value is shown, since it may be a password.
read_line() { # LINE
    local assignment='^([A-Z_][A-Z0-9_]*)[[:space:]]*=([[:space:]]*)(.*)$'
    local names='^[A-Z_][A-Z0-9_]*([[:space:]]+[A-Z_][A-Z0-9_]*)*$'
    local line name value text
    trim "$1"
    line=$trimmed
    case $line in
    '' | '#'*) return ;;
    export[[:blank:]]*)
        trim "${line#export}"
        line=$trimmed
        # Everything is exported.
        [[ ! $line =~ $names ]] || return 0
        ;;
    esac
    reason="不是 NAME=value 格式"
    [[ $line =~ $assignment ]] || return
    name=${BASH_REMATCH[1]} text=${BASH_REMATCH[3]}
    # A comment in the place of the value.
    [ -z "${BASH_REMATCH[2]}" ] || text=${text/#\#*/}
    read_value "$name" "$text" || { reason="$name: $reason" && return 1; }
    if [ -z "${!name-}" ] || [ -n "${from_file[$name]-}" ]; then
        reason="$name: 无法设置该变量"
        export "$name=$value" 2>/dev/null || return
        from_file[$name]=yes
    fi
}

read_settings() { # FILE
    local line number=0 reason trimmed
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        [ $number -gt 1 ] || line=${line#$'\xef\xbb\xbf'}
        if ! read_line "$line"; then
            echo "[ERROR] $1 第 $number 行: $reason"
            exit 1
        fi
    done <"$1"
}

find_program() {
    if [ -x "$here/invoice-export" ]; then
        echo "$here/invoice-export"
    else
        command -v invoice-export
    fi
}

settings=$here/export_invoice_data.env
if [ -e "$settings" ] || [ -L "$settings" ]; then
    if [ ! -f "$settings" ] || [ ! -r "$settings" ]; then
        echo "[ERROR] 无法读取 $settings"
        exit 1
    fi
    read_settings "$settings"
fi
if ! program=$(find_program); then
    echo "[ERROR] 找不到 invoice-export: 请将其放入 PATH 或 $here"
    exit 1
fi
export INVOICE_EXPORT_MIRROR_LEGACY_STATE="${INVOICE_EXPORT_MIRROR_LEGACY_STATE:-true}"
"$program" run --lang zh 2>&1 || exit 1

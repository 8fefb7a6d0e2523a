#!/bin/bash
# The documented exporter, full mode, rebuilt from its documentation.
# usage: legacy.sh OUTPUT_DIR DATABASE [mysql client options...]
out=$1; db=$2; shift 2
client=$(command -v mariadb || command -v mysql)
n=0
"$client" "$@" --quick -N -B "$db" -e "SELECT ftenant_id, fcountry, DATE_FORMAT(fissue_date, '%Y%m%d'), finvoice_no, fext_field, fupdate_time FROM t_invoice WHERE fissue_status = 3 AND fext_field IS NOT NULL AND finvoice_no IS NOT NULL AND fissue_date IS NOT NULL ORDER BY ftenant_id, fcountry, fissue_date, finvoice_no" |
while IFS=$'\t' read -r tenant country date number doc _; do
  mkdir -p "$out/$tenant/$country"
  printf '%b' "$doc" > "$out/$tenant/$country/$date+$number.json"
  n=$((n+1)); [ $((n%100)) -eq 0 ] && echo "[INFO] 已导出 $n 条记录..."
done
exit 0

held=' '
while read -r line; do
  group=${line#?}
  group=${group%% *}
  case $line in
    +*) held="$held$group " ;;
    -*) case $held in *" $group "*) held="${held%% $group *} ${held#* $group }" ;; esac ;;
  esac
done
for group in $held; do kill -s TERM -- "-$group" 2>/dev/null && left=1; done
[ "${left:-}" ] || exit 0
sleep 1
for group in $held; do kill -s KILL -- "-$group" 2>/dev/null; done
exit 0

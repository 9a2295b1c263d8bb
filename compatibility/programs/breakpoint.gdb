set pagination off
set confirm off
break breakpoint.cu:9
run
print threadIdx
print blockIdx
print scaled
delete
continue
quit

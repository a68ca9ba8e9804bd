# What block designs are made with: cells, what joins them, and the memory that a master sees.

# The newest version of an IP of AMD's: which one that is differs from release to release.
proc newest {name} {
    set found [lsort -dictionary [get_ipdefs -quiet xilinx.com:ip:$name:*]]
    if {[llength $found] == 0} {
        error "streamtrain: Vivado's catalogue has no IP $name"
    }
    return [lindex $found end]
}

proc add {cell vlnv args} {
    set made [create_bd_cell -type ip -vlnv $vlnv $cell]
    if {[llength $args]} {
        set_property -dict $args $made
    }
    return $made
}

# Joins one output pin to inputs.
proc wire {source args} {
    foreach sink $args {
        connect_bd_net [get_bd_pins $source] [get_bd_pins $sink]
    }
}

# Joins two bus interfaces.
proc link {master slave} {
    connect_bd_intf_net [get_bd_intf_pins $master] [get_bd_intf_pins $slave]
}

# A master sees the memory at the processor's addresses, and nothing else.
proc give_memory {space} {
    global ps_slave_segments ps_memory
    foreach segment [get_bd_addr_segs $ps_slave_segments] {
        if {[string match */$ps_memory $segment]} {
            assign_bd_address -offset 0x00000000 \
                -target_address_space [get_bd_addr_spaces $space] $segment
        } else {
            exclude_bd_addr_seg -target_address_space [get_bd_addr_spaces $space] $segment
        }
    }
}

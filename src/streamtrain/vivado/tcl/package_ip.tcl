# Packages the core as an IP for Vivado's catalogue: component.xml beside this file.
#
#   vivado -mode batch -source package_ip.tcl
#
# Every bus interface is declared here, because what Vivado infers depends on its version.

set ip_folder [file dirname [file normalize [info script]]]
source [file join $ip_folder ip_settings.tcl]

# Adds a bus interface; `ports` are pairs of the bus's own name and the port of the core.
proc add_bus {core name type mode ports} {
    lassign [split $type :] vendor library kind
    set bus [ipx::add_bus_interface $name $core]
    set_property abstraction_type_vlnv $vendor:$library:${kind}_rtl:1.0 $bus
    set_property bus_type_vlnv $vendor:$library:$kind:1.0 $bus
    set_property interface_mode $mode $bus
    foreach {logical physical} $ports {
        set_property physical_name $physical [ipx::add_port_map $logical $bus]
    }
    return $bus
}

proc add_parameter {bus name value} {
    set_property value $value [ipx::add_bus_parameter $name $bus]
}

# The ports of a bus whose names are a prefix and the bus's own names in lower case.
proc prefixed {prefix names} {
    set ports {}
    foreach name $names {
        lappend ports $name ${prefix}_[string tolower $name]
    }
    return $ports
}

# The part does not matter to the package: any that is installed will do.
set package_project [file join $ip_folder package_project]
create_project -force package_ip $package_project -part [lindex [get_parts] 0]
add_files -norecurse [file join $ip_folder $ip_name.v]
set_property top $ip_name [current_fileset]
update_compile_order -fileset sources_1

ipx::package_project -root_dir $ip_folder -vendor $ip_vendor -library $ip_library \
    -taxonomy /UserIP -force
set core [ipx::current_core]
set_property name $ip_name $core
set_property version $ip_version $core
set_property core_revision 1 $core
set_property display_name $ip_name $core
set_property description $ip_description $core
set_property supported_families [concat \
    zynq Production zynquplus Production artix7 Production kintex7 Production] $core

ipx::remove_all_bus_interface $core
foreach map [ipx::get_memory_maps -of_objects $core] {
    ipx::remove_memory_map [get_property name $map] $core
}

set buses s_axi_ctrl
foreach {name mode} $ip_streams {
    add_bus $core $name xilinx.com:interface:axis $mode \
        [prefixed $name {TDATA TKEEP TLAST TVALID TREADY}]
    lappend buses $name
}

foreach {name data_bits} $ip_masters {
    set master [add_bus $core $name xilinx.com:interface:aximm master [prefixed $name {
        AWID AWADDR AWLEN AWSIZE AWBURST AWCACHE AWPROT AWVALID AWREADY
        WDATA WSTRB WLAST WVALID WREADY BID BRESP BVALID BREADY
        ARID ARADDR ARLEN ARSIZE ARBURST ARCACHE ARPROT ARVALID ARREADY
        RID RDATA RRESP RLAST RVALID RREADY
    }]]
    add_parameter $master PROTOCOL AXI4
    add_parameter $master DATA_WIDTH $data_bits
    add_parameter $master ADDR_WIDTH 32
    add_parameter $master SUPPORTS_NARROW_BURST 0
    set space [ipx::add_address_space $name $core]
    set_property range 4G $space
    set_property width $data_bits $space
    set_property master_address_space_ref $name $master
    lappend buses $name
}

set control [add_bus $core s_axi_ctrl xilinx.com:interface:aximm slave [prefixed s_axi_ctrl {
    AWADDR AWPROT AWVALID AWREADY WDATA WSTRB WVALID WREADY BRESP BVALID BREADY
    ARADDR ARPROT ARVALID ARREADY RDATA RRESP RVALID RREADY
}]]
add_parameter $control PROTOCOL AXI4LITE
add_parameter $control DATA_WIDTH 32
set map [ipx::add_memory_map s_axi_ctrl $core]
set_property slave_memory_map_ref s_axi_ctrl $control
set registers [ipx::add_address_block reg0 $map]
set_property range $ip_register_bytes $registers
set_property width 32 $registers
set_property usage register $registers

set clock [add_bus $core aclk xilinx.com:signal:clock slave {CLK aclk}]
add_parameter $clock ASSOCIATED_BUSIF [join $buses :]
add_parameter $clock ASSOCIATED_RESET aresetn
set reset [add_bus $core aresetn xilinx.com:signal:reset slave {RST aresetn}]
add_parameter $reset POLARITY ACTIVE_LOW
set interrupt [add_bus $core irq xilinx.com:signal:interrupt master {INTERRUPT irq}]
add_parameter $interrupt SENSITIVITY LEVEL_HIGH

ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
file delete -force $package_project
puts "streamtrain: packaged $ip_vendor:$ip_library:$ip_name:$ip_version in $ip_folder"

# find_package(p2pos) and then target_link_libraries(yours p2pos::p2pos)
if(NOT TARGET p2pos::p2pos)
  get_filename_component(_p2pos_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
  find_path(P2POS_INCLUDE_DIR p2pos/p2pos.h HINTS "${_p2pos_lib}/../include" "${_p2pos_lib}/../../include")
  find_library(P2POS_LIBRARY p2pos HINTS "${_p2pos_lib}")
  add_library(p2pos::p2pos UNKNOWN IMPORTED)
  set_target_properties(p2pos::p2pos PROPERTIES IMPORTED_LOCATION "${P2POS_LIBRARY}"
                                                INTERFACE_INCLUDE_DIRECTORIES "${P2POS_INCLUDE_DIR}")
endif()
